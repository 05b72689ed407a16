"""Bases in files of the user's own: an image encoder as ONNX, or a Keras model. They are read as
data, checked, and tried in a process of their own before a job begins.
"""
