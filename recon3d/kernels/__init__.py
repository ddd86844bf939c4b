"""Hot operations: raw tensors in and out, one public function each, several backends.

Every operation has a `reference` backend (readable torch, the definition of correct) and compiled ones;
`recon3d.kernels.dispatch` chooses. All backends of an operation share signature, dtype rules and tie-breaking.
"""
