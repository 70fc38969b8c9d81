"""From pictures to training sets: procedural cars, decoding, splitting, packing."""
