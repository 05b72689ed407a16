"""What is read: where photographs are found, tables and lists of them, their classes and split, and
their pixels. Knows no base, no output and no Ray; imports `stores`.
"""
