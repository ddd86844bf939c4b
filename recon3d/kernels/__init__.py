"""Hot operations: raw tensors in and out, one public function each, several backends.

Every operation has a `reference` backend (readable torch, the definition of correct) and compiled ones;
`recon3d.kernels.dispatch` chooses. All backends of an operation share signature, dtype rules and tie-breaking.
"""

from recon3d.kernels.neural_rasterize import NeuralRaster as NeuralRaster
from recon3d.kernels.neural_rasterize import neural_rasterize as neural_rasterize
from recon3d.kernels.pairwise_repulsion import pairwise_repulsion as pairwise_repulsion
from recon3d.kernels.soft_face_pixels import FacePixels as FacePixels
from recon3d.kernels.soft_face_pixels import soft_face_pixels as soft_face_pixels
from recon3d.kernels.soft_rgb import soft_rgb as soft_rgb
from recon3d.kernels.soft_silhouette import soft_silhouette as soft_silhouette
from recon3d.kernels.voxelize import voxelize as voxelize
from recon3d.kernels.zbuffer import ZBuffer as ZBuffer
from recon3d.kernels.zbuffer import zbuffer as zbuffer
