"""From images to descriptors: image pyramid, DELG, PCA, parts of a store."""
