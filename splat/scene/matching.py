"""Feature extraction and matching with pycolmap: what structure from motion and triangulation share."""

import itertools
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pycolmap
from sklearn.cluster import MiniBatchKMeans
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.neighbors import NearestNeighbors

from splat.scene.undistort import Lens

SEED = 0

EXHAUSTIVE_UP_TO = 60
"""So many photos are matched each with each (1770 pairs); more only with their likely partners."""

Pair = tuple[str, str]


def quiet() -> None:
    """Keep COLMAP's log off the terminal and its random choices the same every time."""
    pycolmap.logging.logtostdout = False
    pycolmap.logging.alsologtostderr = False
    pycolmap.logging.stderrthreshold = int(pycolmap.logging.Level.FATAL)
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    pycolmap.set_random_seed(SEED)


def extract(database: Path, folder: Path, lenses: Mapping[str, Lens], features: int, trusted: Container[str]) -> None:
    """SIFT features of images into a new ``database``.

    Args:
        folder: the image names are relative to it. Images in one sub-folder share a camera.
        lenses: for each image name the camera it was taken with, or a guess of it.
        features: at most so many per image.
        trusted: names of the images whose focal length is more than a guess (a calibration, an EXIF tag).
    """
    quiet()
    options = pycolmap.FeatureExtractionOptions()
    options.sift.max_num_features = features
    per_folder = any("/" in name for name in lenses)
    mode = pycolmap.CameraMode.PER_FOLDER if per_folder else pycolmap.CameraMode.PER_IMAGE
    names = sorted(lenses)
    # First the images, in order: the extraction's threads would number them in the order they finish.
    pycolmap.Database.open(str(database)).close()
    pycolmap.import_images(str(database), str(folder), camera_mode=mode, image_names=names)
    pycolmap.extract_features(
        str(database), str(folder), image_names=names, extraction_options=options, device=pycolmap.Device.cpu
    )
    with pycolmap.Database.open(str(database)) as opened:
        for image in opened.read_all_images():
            camera = lenses[image.name].colmap
            camera.camera_id = image.camera_id
            camera.has_prior_focal_length = image.name in trusted
            opened.update_camera(camera)


def match(database: Path, pairs: Iterable[Pair]) -> None:
    """Match the features of each pair of image names and verify the matches geometrically."""
    quiet()
    listing = database.with_suffix(".pairs.txt")
    listing.write_text("".join(f"{first} {second}\n" for first, second in pairs), encoding="utf-8")
    matching = pycolmap.FeatureMatchingOptions()
    # With more, one scene in some hundreds gets other matches; the search within a pair uses all cores anyway.
    matching.num_threads = 1
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = SEED  # threads would draw from generators of their own
    pycolmap.match_image_pairs(
        str(database),
        matching_options=matching,
        verification_options=verification,
        pairing_options=pycolmap.ImportedPairingOptions(match_list_path=str(listing)),
        device=pycolmap.Device.cpu,
    )


def likely_pairs(database: Path, names: Sequence[str], neighbours: int = 20, overlap: int = 8) -> list[Pair]:
    """Pairs of photos that may show the same thing: all of them for a few photos.

    For more than `EXHAUSTIVE_UP_TO`, each photo with the ``overlap`` that follow it by name and with
    the ``neighbours`` that look most like it: bags of visual words (k-means over the SIFT descriptors
    in ``database``), weighted by tf-idf, compared by cosine (Sivic & Zisserman, Video Google, 2003).
    """
    if len(names) <= EXHAUSTIVE_UP_TO:
        return list(itertools.combinations(names, 2))
    words = _visual_words(database, names)
    nearest = NearestNeighbors(n_neighbors=min(neighbours + 1, len(names)), metric="cosine").fit(words)
    pairs = {
        (min(i, int(j)), max(i, int(j))) for i, row in enumerate(nearest.kneighbors(words)[1]) for j in row if j != i
    }
    pairs |= {(i, j) for i in range(len(names)) for j in range(i + 1, min(i + 1 + overlap, len(names)))}
    return [(names[i], names[j]) for i, j in sorted(pairs)]


def _visual_words(database: Path, names: Sequence[str], words: int = 512, sample: int = 300) -> np.ndarray:
    """Tf-idf weighted word counts [len(names), words]."""
    random = np.random.default_rng(SEED)
    with pycolmap.Database.open(str(database)) as opened:
        by_name = {image.name: image.image_id for image in opened.read_all_images()}
        descriptors = [np.asarray(opened.read_descriptors(by_name[name]).data, np.float32) for name in names]
    few = np.concatenate([d[random.permutation(len(d))[:sample]] for d in descriptors])
    means = MiniBatchKMeans(min(words, len(few)), random_state=SEED, n_init=1, batch_size=4096).fit(few)
    counts = np.stack(
        [
            np.bincount(means.predict(d), minlength=means.n_clusters) if len(d) else np.zeros(means.n_clusters)
            for d in descriptors
        ]
    )
    return TfidfTransformer(sublinear_tf=True).fit_transform(counts).toarray()
