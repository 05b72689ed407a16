"""What may be believed: evidence, calibration, thresholds, novelty, scores, and what people and
copies say against it. Knows no Ray; imports what computes (`heads`) and what was written.
"""
