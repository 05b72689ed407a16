"""Pixels to features: which bases there are and what makes their features, their weights, and the
engines that compute them. Knows no output and no Ray; imports `stores`.
"""
