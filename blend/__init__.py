"""From a photo to futuristic designs: encoder, inversion, blend, measures, gallery."""
