"""Pictures: from files of any kind to labelled uint8 arrays, with NumPy and Pillow alone.

What is read here is raw: whole pixels 0..255, nothing subtracted, scaled or augmented. SciPy (SVHN), scikit-learn
(digits), pooch (downloads) and tqdm (bars) are imported where they are used.
"""

from bitwren.pictures.crop import crop_picture
from bitwren.pictures.datasets import MEMORY_LIMIT, load_dataset, streamed
from bitwren.pictures.decode import read_picture
from bitwren.pictures.download import cache_folder
from bitwren.pictures.folder import FolderListing, decode_files, list_folder, load_folder
from bitwren.pictures.pictures import Pictures, Split, stratified_split
from bitwren.pictures.registry import DATASETS, Dataset, find_dataset

__all__ = [
    "DATASETS",
    "MEMORY_LIMIT",
    "Dataset",
    "FolderListing",
    "Pictures",
    "Split",
    "cache_folder",
    "crop_picture",
    "decode_files",
    "find_dataset",
    "list_folder",
    "load_dataset",
    "load_folder",
    "read_picture",
    "stratified_split",
    "streamed",
]
