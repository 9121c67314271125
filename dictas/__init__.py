"""Few-shot anomaly segmentation: what cannot be looked up in a dictionary of normal patches is an anomaly.

After DictAS (arXiv 2508.13560). The dictionary is made of a few normal photos of a class never seen in training.
"""
