"""`recon3d gallery`: runs and Records to a static web page of every method's meshes."""
