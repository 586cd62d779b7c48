"""Discovery of images, ages and metadata in a BIDS dataset."""
