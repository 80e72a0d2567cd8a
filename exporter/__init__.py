"""The pipeline: source, optimize, judge, deliver. Knows no runtime SDK."""
