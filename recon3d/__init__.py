"""recon3d: single-view 3D reconstruction methods, trained, compared and used on equal terms.

Importing this package does not import torch; the reading order of its parts follows the data:
structures, data, methods, renderers, evaluation, bench, apps.
"""

__version__ = "0.1.0"
