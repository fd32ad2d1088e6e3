"""Package metadata. Two sets of versions are supported; `pip install eet-tf` takes the newer one."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "eet_tf" / "__init__.py").read_text())[1]

setup(
    name="eet-tf",
    version=VERSION,
    description="Visual product search for TensorFlow: learn the embedding, export it, find the neighbours",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The eet-tf authors",
    license="Apache-2.0",
    keywords=[
        *("visual search", "product search", "image retrieval", "metric learning", "triplet loss", "embeddings"),
        *("nearest neighbor search", "TensorFlow", "Keras"),
    ],
    python_requires=">=3.10,<3.14",
    entry_points={"console_scripts": ["eet = eet_tf.cli.main:main"]},
    packages=find_packages(include=["eet_tf", "eet_tf.*"]),
    package_data={
        "eet_tf": ["py.typed", "*.pyi"],
        "eet_tf.data": ["*.pyi"],
        "eet_tf.pages": ["templates/*"],
        "eet_tf.service": ["templates/*", "static/*"],
    },
    install_requires=[
        # TF 2.20 with Keras 3 and scann 1.4.2 is the default; TF 2.15 is there for the extra [addons] alone. An extra
        # can narrow a range but not replace a pin, so both sets stand in it and pip takes the newest.
        "tensorflow>=2.15.1,<2.21,!=2.16.*,!=2.17.*,!=2.18.*,!=2.19.*",
        "keras>=2.15,<4",
        "keras-cv>=0.9,<0.10",
        "scann[tf]>=1.3.0,<1.5",
        "absl-py>=2",
        "numpy>=1.26",
        "pillow>=10",
        "matplotlib>=3.7",
    ],
    extras_require={
        # the last versions with which tensorflow-addons works; Python 3.10 and 3.11
        "addons": [
            "tensorflow==2.15.1",
            "keras==2.15.*",
            "scann==1.3.0",
            "tensorflow-addons==0.23.0",
            "tensorflow-metadata<1.16",
        ],
        # backbones of keras-hub; not with [addons]. tensorflow-text 2.21 would bring TensorFlow 2.21
        "hub": [
            "keras-hub>=0.29,<0.33; python_version >= '3.11'",
            "tensorflow-text>=2.20,<2.21; python_version >= '3.11'",
        ],
        # eet embed; not with [addons], whose protobuf is too old for it
        "beam": ["apache-beam>=2.77,<3"],
        # MilvusIndex: the client of a cluster, and milvus-lite for where there is none; not with [addons], whose
        # protobuf is too old for the client
        "milvus": ["pymilvus>=3.0,<4", "milvus-lite>=3.2,<3.3"],
        # make test-milvus: a real server of one machine, whose only package is for Linux on x86-64
        "milvus-server": ["milvus==2.3.5; platform_system == 'Linux' and platform_machine == 'x86_64'"],
        # eet export --bundle, eet verify and the client by gRPC; of TensorFlow's version
        "serving": ["tensorflow-serving-api>=2.15.1,<2.21,!=2.16.*,!=2.17.*,!=2.18.*,!=2.19.*"],
        # eet serve
        "demo": ["flask>=3,<4"],
        # lists as Excel and Parquet files
        "xlsx": ["openpyxl>=3.1"],
        "parquet": ["pyarrow>=15"],
        # eet convert reads HEIC with it; AVIF and TIFF are Pillow's own
        "convert": ["pillow-heif>=1"],
        # photos at s3://, gs:// and other URLs; the client library of a cloud (s3fs, gcsfs, adlfs) comes beside it.
        # https:// needs none of this
        "remote": ["fsspec>=2023.1"],
        # the official annotations of Cars196 are MATLAB files
        "cars196": ["scipy>=1.11"],
        "test": [
            *("pytest", "pytest-xdist", "hypothesis", "pyyaml", "ruff", "scipy>=1.11", "flask>=3,<4", "pillow-heif>=1"),
            *("fsspec>=2023.1", "openpyxl>=3.1", "polars"),
            # make typecheck, make coverage, and tests/test_package.py, which builds the wheel without a network
            *("mypy>=2.4", "coverage>=7.10", "pytest-cov>=7", "setuptools>=61", "wheel"),
        ],
        # make docs, in an environment of its own without TensorFlow; Python 3.11 and later
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.8,<10", "mkdocstrings[python]>=1,<2"],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        *[f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)],
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
