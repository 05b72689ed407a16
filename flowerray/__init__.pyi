"""The calls' signatures, for editors and type checkers: written by `make stubs`."""

from collections.abc import Sequence
from os import PathLike
from typing import Any, Literal

from flowerray.commands.accept import AcceptSummary
from flowerray.commands.audit import AuditSummary
from flowerray.commands.baseline import BaselineSummary
from flowerray.commands.check import CheckSummary
from flowerray.commands.compare import CompareSummary
from flowerray.commands.export import ExportSummary
from flowerray.commands.extract import ExtractSummary
from flowerray.commands.label import LabelSummary
from flowerray.commands.package import PackageSummary
from flowerray.commands.report import ReportSummary
from flowerray.commands.run import RunSummary
from flowerray.commands.similar import Similar
from flowerray.commands.suggest import SuggestSummary
from flowerray.commands.train import TrainSummary
from flowerray.commands.verify import Verdict
from flowerray.commands.predict import load as load
from flowerray.errors import FlowerrayError as FlowerrayError
from flowerray.errors import UsageError as UsageError

__version__: str
__all__: list[str]

def extract(
    images: str | PathLike[str],
    *,
    out: str | PathLike[str],
    base: str | PathLike[str] = 'vgg16',
    layer: str | None = None,
    preparation: Literal['vgg', 'tf', 'torch', 'none', 'efficientnet', 'lite', 'article'] | None = None,
    pool: Literal['embedding', 'avg', 'cls', 'none'] | None = None,
    augment: Literal['mirror'] | None = None,
    precision: Literal['auto', 'float32', 'bfloat16', 'float16', 'int8'] = 'auto',
    valid_fraction: float = 0.1,
    train_per_class: int | None = None,
    valid_per_class: int | None = None,
    seed: int = 0,
    append: bool = False,
    sync: bool = False,
    overwrite: bool = False,
    retry_rejected: bool = False,
    weights: str | PathLike[str] = 'imagenet',
    engine: Literal['auto', 'keras', 'openvino', 'onnxruntime'] = 'auto',
    shard_size: int | None = None,
    uri_column: str | None = None,
    label_column: str | None = None,
    max_megapixels: float = 100.0,
    max_megabytes: float = 256.0,
    formats: str | None = None,
    read_timeout: float = 60.0,
    decode_timeout: float = 60.0,
    address: str | None = None,
    device: Literal['auto', 'cpu', 'gpu'] = 'auto',
    actors: int | None = None,
    threads: int | None = None,
    batch_size: int | None = None,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    allow_redirects: str | None = None,
) -> ExtractSummary:
    """Turn labelled photographs into features.

    Args:
        images (str | PathLike[str]): directory of class folders (with or without train/ and
            valid/), a flat directory, a glob, a .txt list, or a .parquet or .csv table with a
            uri column; local, or s3://, gs://, az://, hdfs://, https://
        out (str | PathLike[str]): directory for the shards
        base (str | PathLike[str], default 'vgg16'): pretrained base: a name that `flowerray
            bases` lists, or an image encoder of your own: a .onnx or .keras file, or the
            directory that it and preprocessor_config.json are in, by its path or its address
            (as of --weights)
        layer (str | None, default None): take the features after this layer, of an ONNX file
            this output of it [the last; the first output]
        preparation (Literal['vgg', 'tf', 'torch', 'none', 'efficientnet', 'lite', 'article'] |
            None, default None): how pixels are prepared: vgg, tf, torch, none, efficientnet,
            lite or article [the base's own]
        pool (Literal['embedding', 'avg', 'cls', 'none'] | None, default None): what is kept of
            the base's features: embedding (1 KB a photograph for vgg16), avg (their mean over
            the map or the tokens), cls (the first token), or none (the map whole, for the
            recipes article and finetune) [embedding; none with --layer]
        augment (Literal['mirror'] | None, default None): mirror computes the features of each
            photograph's mirror image too, to train on
        precision (Literal['auto', 'float32', 'bfloat16', 'float16', 'int8'], default 'auto'):
            arithmetic of the base; auto is bfloat16 where the hardware has it, else float32;
            int8 needs flowerray[openvino] and CPUs
        valid_fraction (float, default 0.1): share of each class kept for validation where the
            folders name no split
        train_per_class (int | None, default None): photographs of each class to train on, drawn
            by --seed; the rest is left out
        valid_per_class (int | None, default None): photographs of each class to validate on,
            drawn by --seed
        seed (int, default 0): seed of the split
        append (bool, default False): keep what --out has, add the photographs that came since
        sync (bool, default False): as --append, and retire the rows whose file is gone or has
            another label now
        overwrite (bool, default False): delete what an earlier run left in --out, start anew
        retry_rejected (bool, default False): only try the rejected photographs of --out again
        weights (str | PathLike[str], default 'imagenet'): imagenet; a file of weights, or a
            directory with one, by its path or its address (s3://, gs://, az://, https://,
            hf://ORG/MODEL); or random (for smoke tests)
        engine (Literal['auto', 'keras', 'openvino', 'onnxruntime'], default 'auto'): what
            computes: keras, onnxruntime (ONNX files), or openvino on CPUs [openvino where it is
            installed]
        shard_size (int | None, default None): photographs in one shard, the unit of work and of
            retry [32 to 512, by their number]
        uri_column (str | None, default None): the table's column of photographs [uri, or the
            likeliest, which is said]
        label_column (str | None, default None): the table's column of classes [label, or the
            likeliest, which is said]
        max_megapixels (float, default 100.0): reject larger photographs before decoding them
        max_megabytes (float, default 256.0): reject larger files before reading them
        formats (str | None, default None): image formats to decode, with commas between, or
            all; what is in another is rejected [jpeg,png,webp,gif,bmp,tiff,ppm,avif]
        read_timeout (float, default 60.0): give a photograph up that is not read in so many
            seconds
        decode_timeout (float, default 60.0): give a photograph up that is not decoded in so
            many seconds
        address (str | None, default None): Ray cluster to run on (host:port or auto); without
            it, and outside a Ray job, a Ray of one node starts and stops with the command
        device (Literal['auto', 'cpu', 'gpu'], default 'auto'): what each actor computes on; gpu
            asks a cluster that scales from zero for GPU nodes
        actors (int | None, default None): Ray actors, each with its own base [one a GPU, and
            one a CPU elsewhere]
        threads (int | None, default None): CPU threads that each actor computes with [1, more
            where memory is short], or on a GPU decodes with [all CPUs beside the GPU]
        batch_size (int | None, default None): photographs in one forward pass [16, on a GPU
            128]
        endpoint_url (str | None, default None): address of the S3 server behind s3:// [AWS'
            own]
        anonymous (bool, default False): read photographs and weights in object stores without
            credentials
        allow_redirects (str | None, default None): hosts, by commas, that web servers may
            redirect to [their own]

    Returns:
        ExtractSummary

    Raises:
        UsageError: an option is of another type, out of range, or contradicts another.
        FlowerrayError: the job can't be done as asked; the message says what to mend.
    """

def train(
    features: str | PathLike[str],
    *,
    out: str | PathLike[str],
    recipe: Literal['mlp', 'logistic', 'article', 'finetune'] = 'mlp',
    epochs: int | None = None,
    from_layer: str | None = None,
    patience: int | None = None,
    class_weights: Literal['balanced'] | None = None,
    corrections: str | PathLike[str] | None = None,
    pile_features: str | PathLike[str] | None = None,
    none_class: str | None = None,
    weights: str | PathLike[str] = 'imagenet',
    seed: int = 0,
    overwrite: bool = False,
    tensorboard: str | PathLike[str] | None = None,
    mlflow: str | None = None,
    uri_column: str | None = None,
    label_column: str | None = None,
    address: str | None = None,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    allow_redirects: str | None = None,
) -> TrainSummary:
    """Fit a classifier's head on features.

    Args:
        features (str | PathLike[str]): directory that `flowerray extract` wrote
        out (str | PathLike[str]): directory for the classifier
        recipe (Literal['mlp', 'logistic', 'article', 'finetune'], default 'mlp'): how the head
            is built and fitted: mlp, logistic, article (Dense 512, 20 epochs), or finetune (the
            base's layers after --layer too, 4 epochs)
        epochs (int | None, default None): epochs, for recipes that have them [the recipe's own]
        from_layer (str | None, default None): for finetune: learn the layers after this one
            alone; the features are of it, or of one before it [all after the features']
        patience (int | None, default None): stop after so many epochs without a smaller loss on
            photographs held out (for finetune by folds, for article those to validate), and
            keep the best epoch's head [all epochs, the last one's]
        class_weights (Literal['balanced'] | None, default None): balanced gives each class the
            same weight, however many photographs it has
        corrections (str | PathLike[str] | None, default None): tables, with commas between, of
            what people said: uri and label, as a report exports them and labels keep them, or
            findings of `flowerray check`; photographs that the features lack are trained on
            too, the label none says that none of the classes is there, an empty one leaves a
            photograph out
        pile_features (str | PathLike[str] | None, default None): stored features of the pile,
            which photographs that corrections name are taken from
        none_class (str | None, default None): the class that stands for none of the others: it
            is learned, and never given as a label [none or other, where there is one]
        weights (str | PathLike[str], default 'imagenet'): the base's, for finetune: imagenet; a
            file of weights, or a directory with one, by its path or its address (s3://, gs://,
            az://, https://, hf://ORG/MODEL); or random (for smoke tests)
        seed (int, default 0): seed of initial values and shuffling
        overwrite (bool, default False): delete the classifier in --out and train anew
        tensorboard (str | PathLike[str] | None, default None): log epochs and final scores for
            TensorBoard, into a directory of their own in this one
        mlflow (str | None, default None): log parameters, epochs, scores and the classifier to
            this experiment at MLFLOW_TRACKING_URI; needs flowerray[mlflow]
        uri_column (str | None, default None): the table's column of photographs [uri, or the
            likeliest, which is said]
        label_column (str | None, default None): the table's column of classes [label, or the
            likeliest, which is said]
        address (str | None, default None): Ray cluster to run on (host:port or auto); without
            it, and outside a Ray job, a Ray of one node starts and stops with the command
        endpoint_url (str | None, default None): address of the S3 server behind s3:// [AWS'
            own]
        anonymous (bool, default False): read photographs and weights in object stores without
            credentials
        allow_redirects (str | None, default None): hosts, by commas, that web servers may
            redirect to [their own]

    Returns:
        TrainSummary

    Raises:
        UsageError: an option is of another type, out of range, or contradicts another.
        FlowerrayError: the job can't be done as asked; the message says what to mend.
    """

def label(
    images: str | PathLike[str],
    *,
    classifier: str | PathLike[str],
    out: str | PathLike[str],
    keep_features: str | PathLike[str] | None = None,
    format: Literal['parquet', 'csv', 'jsonl'] = 'parquet',
    gallery: str | PathLike[str] | None = None,
    top_k: int = 3,
    precision: Literal['float32', 'bfloat16', 'float16', 'int8'] | None = None,
    append: bool = False,
    sync: bool = False,
    overwrite: bool = False,
    retry_rejected: bool = False,
    weights: str | PathLike[str] = 'imagenet',
    engine: Literal['auto', 'keras', 'openvino', 'onnxruntime'] = 'auto',
    shard_size: int | None = None,
    min_precision: float | None = None,
    min_confidence: float | None = None,
    thresholds: str | PathLike[str] | None = None,
    corrections: str | PathLike[str] | None = None,
    uri_column: str | None = None,
    max_megapixels: float = 100.0,
    max_megabytes: float = 256.0,
    formats: str | None = None,
    read_timeout: float = 60.0,
    decode_timeout: float = 60.0,
    address: str | None = None,
    device: Literal['auto', 'cpu', 'gpu'] = 'auto',
    actors: int | None = None,
    threads: int | None = None,
    batch_size: int | None = None,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    allow_redirects: str | None = None,
) -> LabelSummary:
    """Label photographs with a classifier.

    Args:
        images (str | PathLike[str]): directory (searched to any depth), a glob, a .txt list, or
            a .parquet or .csv table with a uri column; local, or s3://, gs://, az://, hdfs://,
            https://; or the --out of extract or --keep-features, to label from stored features
        classifier (str | PathLike[str]): directory that `flowerray train` wrote, or an ONNX
            file of `flowerray package`
        out (str | PathLike[str]): directory for the shards
        keep_features (str | PathLike[str] | None, default None): compute the features into this
            directory, and label from there: to label again, by another classifier of the same
            base, takes seconds
        format (Literal['parquet', 'csv', 'jsonl'], default 'parquet'): also write all labels as
            one csv or jsonl file
        gallery (str | PathLike[str] | None, default None): draw photographs with label and
            confidence into this PNG
        top_k (int, default 3): labels kept for each photograph
        precision (Literal['float32', 'bfloat16', 'float16', 'int8'] | None, default None):
            arithmetic of the base; another than the classifier's is tried on a sample first,
            and how many labels agree is said [the classifier's]
        append (bool, default False): keep what --out has, add the photographs that came since
        sync (bool, default False): as --append, and retire the rows whose file is gone or has
            another label now
        overwrite (bool, default False): delete what an earlier run left in --out, start anew
        retry_rejected (bool, default False): only try the rejected photographs of --out again
        weights (str | PathLike[str], default 'imagenet'): imagenet; a file of weights, or a
            directory with one, by its path or its address (s3://, gs://, az://, https://,
            hf://ORG/MODEL); or random (for smoke tests)
        engine (Literal['auto', 'keras', 'openvino', 'onnxruntime'], default 'auto'): what
            computes: keras, onnxruntime (ONNX files), or openvino on CPUs [openvino where it is
            installed]
        shard_size (int | None, default None): photographs in one shard, the unit of work and of
            retry [32 to 512, by their number]
        min_precision (float | None, default None): accept a class' labels down to the
            confidence at which so large a share of them is right, by the bound that the
            classifier's evidence allows; the rest is for people to review
        min_confidence (float | None, default None): accept labels of this confidence; the rest
            is for people to review
        thresholds (str | PathLike[str] | None, default None): accept by this JSON file, a
            confidence a class, and nothing of a class that it lacks; whichever way is asked
            for, what is not accepted is in review.parquet
        corrections (str | PathLike[str] | None, default None): tables, with commas between, of
            what people said: uri, label, and perhaps who, when, round; their labels stand, and
            never come to review again
        uri_column (str | None, default None): the table's column of photographs [uri, or the
            likeliest, which is said]
        max_megapixels (float, default 100.0): reject larger photographs before decoding them
        max_megabytes (float, default 256.0): reject larger files before reading them
        formats (str | None, default None): image formats to decode, with commas between, or
            all; what is in another is rejected [jpeg,png,webp,gif,bmp,tiff,ppm,avif]
        read_timeout (float, default 60.0): give a photograph up that is not read in so many
            seconds
        decode_timeout (float, default 60.0): give a photograph up that is not decoded in so
            many seconds
        address (str | None, default None): Ray cluster to run on (host:port or auto); without
            it, and outside a Ray job, a Ray of one node starts and stops with the command
        device (Literal['auto', 'cpu', 'gpu'], default 'auto'): what each actor computes on; gpu
            asks a cluster that scales from zero for GPU nodes
        actors (int | None, default None): Ray actors, each with its own base [one a GPU, and
            one a CPU elsewhere]
        threads (int | None, default None): CPU threads that each actor computes with [1, more
            where memory is short], or on a GPU decodes with [all CPUs beside the GPU]
        batch_size (int | None, default None): photographs in one forward pass [16, on a GPU
            128]
        endpoint_url (str | None, default None): address of the S3 server behind s3:// [AWS'
            own]
        anonymous (bool, default False): read photographs and weights in object stores without
            credentials
        allow_redirects (str | None, default None): hosts, by commas, that web servers may
            redirect to [their own]

    Returns:
        LabelSummary

    Raises:
        UsageError: an option is of another type, out of range, or contradicts another.
        FlowerrayError: the job can't be done as asked; the message says what to mend.
    """

def accept(
    labels: str | PathLike[str],
    *,
    min_precision: float | None = None,
    min_confidence: float | None = None,
    thresholds: str | PathLike[str] | None = None,
    corrections: str | PathLike[str] | None = None,
    uri_column: str | None = None,
    label_column: str | None = None,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    allow_redirects: str | None = None,
) -> AcceptSummary:
    """Decide again which labels are accepted, and what people said of them.

    Args:
        labels (str | PathLike[str]): directory that `flowerray label` wrote
        min_precision (float | None, default None): accept a class' labels down to the
            confidence at which so large a share of them is right, by the bound that the
            classifier's evidence allows; the rest is for people to review
        min_confidence (float | None, default None): accept labels of this confidence; the rest
            is for people to review
        thresholds (str | PathLike[str] | None, default None): accept by this JSON file, a
            confidence a class, and nothing of a class that it lacks; whichever way is asked
            for, what is not accepted is in review.parquet
        corrections (str | PathLike[str] | None, default None): tables, with commas between, of
            what people said: uri, label, and perhaps who, when, round; their labels stand, and
            never come to review again
        uri_column (str | None, default None): the table's column of photographs [uri, or the
            likeliest, which is said]
        label_column (str | None, default None): the table's column of classes [label, or the
            likeliest, which is said]
        endpoint_url (str | None, default None): address of the S3 server behind s3:// [AWS'
            own]
        anonymous (bool, default False): read photographs and weights in object stores without
            credentials
        allow_redirects (str | None, default None): hosts, by commas, that web servers may
            redirect to [their own]

    Returns:
        AcceptSummary

    Raises:
        UsageError: an option is of another type, out of range, or contradicts another.
        FlowerrayError: the job can't be done as asked; the message says what to mend.
    """

def suggest(
    source: str | PathLike[str],
    *,
    number: int = 80,
    out: str | PathLike[str] = 'look.csv',
    corrections: str | PathLike[str] | None = None,
    seed: int = 0,
    uri_column: str | None = None,
    label_column: str | None = None,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    allow_redirects: str | None = None,
) -> SuggestSummary:
    """Choose the photographs of a pile that people should look at next.

    Args:
        source (str | PathLike[str]): labels of stored features, or stored features where there
            is no classifier yet
        number (int, default 80): photographs to look at
        out (str | PathLike[str], default 'look.csv'): the photographs, a table to fill in
        corrections (str | PathLike[str] | None, default None): tables, with commas between, of
            what is decided already, beside what the labels keep
        seed (int, default 0): seed of the choice
        uri_column (str | None, default None): the table's column of photographs [uri, or the
            likeliest, which is said]
        label_column (str | None, default None): the table's column of classes [label, or the
            likeliest, which is said]
        endpoint_url (str | None, default None): address of the S3 server behind s3:// [AWS'
            own]
        anonymous (bool, default False): read photographs and weights in object stores without
            credentials
        allow_redirects (str | None, default None): hosts, by commas, that web servers may
            redirect to [their own]

    Returns:
        SuggestSummary

    Raises:
        UsageError: an option is of another type, out of range, or contradicts another.
        FlowerrayError: the job can't be done as asked; the message says what to mend.
    """

def audit(
    labels: str | PathLike[str],
    *,
    number: int | None = None,
    judged: str | PathLike[str] | None = None,
    out: str | PathLike[str] = 'audit.csv',
    min_precision: float | None = None,
    bound_confidence: float = 0.95,
    seed: int = 0,
    uri_column: str | None = None,
    label_column: str | None = None,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    allow_redirects: str | None = None,
) -> AuditSummary:
    """Tell how right the accepted labels of a pile are, by people's judgement of a sample.

    Args:
        labels (str | PathLike[str]): directory that `flowerray label` wrote
        number (int | None, default None): draw so many accepted labels for people to judge [say
            how many are needed]
        judged (str | PathLike[str] | None, default None): what people said of those drawn: tell
            the precision
        out (str | PathLike[str], default 'audit.csv'): the photographs to judge
        min_precision (float | None, default None): the precision that is to be shown [what the
            labels were accepted for, or 0.97]
        bound_confidence (float, default 0.95): how sure the bound is to be
        seed (int, default 0): seed of the sample
        uri_column (str | None, default None): the table's column of photographs [uri, or the
            likeliest, which is said]
        label_column (str | None, default None): the table's column of classes [label, or the
            likeliest, which is said]
        endpoint_url (str | None, default None): address of the S3 server behind s3:// [AWS'
            own]
        anonymous (bool, default False): read photographs and weights in object stores without
            credentials
        allow_redirects (str | None, default None): hosts, by commas, that web servers may
            redirect to [their own]

    Returns:
        AuditSummary

    Raises:
        UsageError: an option is of another type, out of range, or contradicts another.
        FlowerrayError: the job can't be done as asked; the message says what to mend.
    """

def similar(
    features: str | PathLike[str],
    photographs: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    number: int = 20,
    weights: str | PathLike[str] = 'imagenet',
    max_megapixels: float = 100.0,
    max_megabytes: float = 256.0,
    formats: str | None = None,
    read_timeout: float = 60.0,
    decode_timeout: float = 60.0,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    allow_redirects: str | None = None,
) -> list[Similar]:
    """Find the photographs of a pile that are most like some others.

    Args:
        features (str | PathLike[str]): embeddings of a pile: the --out of extract, or --keep-
            features of label
        photographs (str | PathLike[str] | Sequence[str | PathLike[str]]): photographs to find
            others like, of the pile or not
        number (int, default 20): how many to find for each
        weights (str | PathLike[str], default 'imagenet'): imagenet; a file of weights, or a
            directory with one, by its path or its address (s3://, gs://, az://, https://,
            hf://ORG/MODEL); or random (for smoke tests)
        max_megapixels (float, default 100.0): reject larger photographs before decoding them
        max_megabytes (float, default 256.0): reject larger files before reading them
        formats (str | None, default None): image formats to decode, with commas between, or
            all; what is in another is rejected [jpeg,png,webp,gif,bmp,tiff,ppm,avif]
        read_timeout (float, default 60.0): give a photograph up that is not read in so many
            seconds
        decode_timeout (float, default 60.0): give a photograph up that is not decoded in so
            many seconds
        endpoint_url (str | None, default None): address of the S3 server behind s3:// [AWS'
            own]
        anonymous (bool, default False): read photographs and weights in object stores without
            credentials
        allow_redirects (str | None, default None): hosts, by commas, that web servers may
            redirect to [their own]

    Returns:
        list[Similar]

    Raises:
        UsageError: an option is of another type, out of range, or contradicts another.
        FlowerrayError: the job can't be done as asked; the message says what to mend.
    """

def run(
    images: str | PathLike[str],
    pile: str | PathLike[str],
    *,
    out: str | PathLike[str],
    truth: str | PathLike[str] | None = None,
    base: str = 'vgg16',
    preparation: Literal['vgg', 'tf', 'torch', 'none', 'efficientnet', 'lite', 'article'] | None = None,
    precision: Literal['auto', 'float32', 'bfloat16', 'float16', 'int8'] = 'auto',
    recipe: Literal['mlp', 'logistic', 'article'] = 'mlp',
    actors: int | None = None,
    weights: str | PathLike[str] = 'imagenet',
    seed: int = 0,
    min_precision: float | None = None,
    min_confidence: float | None = None,
    address: str | None = None,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    allow_redirects: str | None = None,
) -> RunSummary:
    """Extract, train and label in one go.

    Args:
        images (str | PathLike[str]): labelled photographs, as for `flowerray extract`
        pile (str | PathLike[str]): photographs to label, as for `flowerray label`
        out (str | PathLike[str]): directory for features/, classifier/, pile_features/ (but for
            the recipe article), labels/, labels.png and labels.html
        truth (str | PathLike[str] | None, default None): CSV with columns file and label, to
            score the pile's labels
        base (str, default 'vgg16'): pretrained base
        preparation (Literal['vgg', 'tf', 'torch', 'none', 'efficientnet', 'lite', 'article'] |
            None, default None): how pixels are prepared [the base's own]
        precision (Literal['auto', 'float32', 'bfloat16', 'float16', 'int8'], default 'auto'):
            arithmetic of the base
        recipe (Literal['mlp', 'logistic', 'article'], default 'mlp'): how the head is built and
            fitted
        actors (int | None, default None): Ray actors
        weights (str | PathLike[str], default 'imagenet'): imagenet; a file of weights, or a
            directory with one, by its path or its address (s3://, gs://, az://, https://,
            hf://ORG/MODEL); or random (for smoke tests)
        seed (int, default 0): seed of split and training
        min_precision (float | None, default None): accept a class' labels down to the
            confidence at which so large a share of them is right, by the bound that the
            classifier's evidence allows; the rest is for people to review
        min_confidence (float | None, default None): accept labels of this confidence; the rest
            is for people to review
        address (str | None, default None): Ray cluster to run on (host:port or auto); without
            it, and outside a Ray job, a Ray of one node starts and stops with the command
        endpoint_url (str | None, default None): address of the S3 server behind s3:// [AWS'
            own]
        anonymous (bool, default False): read photographs and weights in object stores without
            credentials
        allow_redirects (str | None, default None): hosts, by commas, that web servers may
            redirect to [their own]

    Returns:
        RunSummary

    Raises:
        UsageError: an option is of another type, out of range, or contradicts another.
        FlowerrayError: the job can't be done as asked; the message says what to mend.
    """

def evaluate(
    labels: str | PathLike[str],
    *,
    truth: str | PathLike[str],
    uri_column: str | None = None,
    label_column: str | None = None,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    allow_redirects: str | None = None,
) -> dict[str, Any]:
    """Score labels against a truth.

    Args:
        labels (str | PathLike[str]): directory that `flowerray label` wrote
        truth (str | PathLike[str]): table with columns file (or uri, path) and label, or
            `folders`: each photograph's folder is its label
        uri_column (str | None, default None): the table's column of photographs [uri, or the
            likeliest, which is said]
        label_column (str | None, default None): the table's column of classes [label, or the
            likeliest, which is said]
        endpoint_url (str | None, default None): address of the S3 server behind s3:// [AWS'
            own]
        anonymous (bool, default False): read photographs and weights in object stores without
            credentials
        allow_redirects (str | None, default None): hosts, by commas, that web servers may
            redirect to [their own]

    Returns:
        dict[str, Any]

    Raises:
        UsageError: an option is of another type, out of range, or contradicts another.
        FlowerrayError: the job can't be done as asked; the message says what to mend.
    """

def verify(
    out: str | PathLike[str],
    *,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    allow_redirects: str | None = None,
) -> Verdict:
    """Check that an output has every photograph once.

    Args:
        out (str | PathLike[str]): the --out of extract or label
        endpoint_url (str | None, default None): address of the S3 server behind s3:// [AWS'
            own]
        anonymous (bool, default False): read photographs and weights in object stores without
            credentials
        allow_redirects (str | None, default None): hosts, by commas, that web servers may
            redirect to [their own]

    Returns:
        Verdict

    Raises:
        UsageError: an option is of another type, out of range, or contradicts another.
        FlowerrayError: the job can't be done as asked; the message says what to mend.
    """

def check(
    source: str | PathLike[str],
    *,
    only: str | None = None,
    out: str | PathLike[str] | None = None,
    keep_one: str | PathLike[str] | None = None,
    strict: bool = False,
    min_side: int | None = None,
    max_aspect: float = 3.0,
    min_photographs: int = 20,
    max_imbalance: float = 10.0,
    uri_column: str | None = None,
    label_column: str | None = None,
    max_megapixels: float = 100.0,
    max_megabytes: float = 256.0,
    formats: str | None = None,
    read_timeout: float = 60.0,
    decode_timeout: float = 60.0,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    allow_redirects: str | None = None,
) -> CheckSummary:
    """Find copies, leakage, wrong labels and odd files in a labelled set.

    Args:
        source (str | PathLike[str]): labelled photographs, as for `flowerray extract`, or its
            --out, which shows wrong labels as well; of a pile's features the copies, by
            embeddings
        only (str | None, default None): do these checks alone, comma-separated: unreadable,
            exact_duplicate, near_duplicate, leakage, two_labels, mislabelled, imbalance,
            few_photographs, similar_names, small, extreme_aspect
        out (str | PathLike[str] | None, default None): also write the findings to this CSV, a
            row each
        keep_one (str | PathLike[str] | None, default None): write a table of the photographs,
            of each group of copies one, to extract or label from
        strict (bool, default False): exit with 1 if anything was found
        min_side (int | None, default None): shortest side in pixels that is not small [the
            input side of the features' base, of vgg16 without features]
        max_aspect (float, default 3.0): longer side over the shorter, above which it is extreme
        min_photographs (int, default 20): fewer photographs of a class are few
        max_imbalance (float, default 10.0): largest class over the smallest, above which it is
            an imbalance
        uri_column (str | None, default None): the table's column of photographs [uri, or the
            likeliest, which is said]
        label_column (str | None, default None): the table's column of classes [label, or the
            likeliest, which is said]
        max_megapixels (float, default 100.0): reject larger photographs before decoding them
        max_megabytes (float, default 256.0): reject larger files before reading them
        formats (str | None, default None): image formats to decode, with commas between, or
            all; what is in another is rejected [jpeg,png,webp,gif,bmp,tiff,ppm,avif]
        read_timeout (float, default 60.0): give a photograph up that is not read in so many
            seconds
        decode_timeout (float, default 60.0): give a photograph up that is not decoded in so
            many seconds
        endpoint_url (str | None, default None): address of the S3 server behind s3:// [AWS'
            own]
        anonymous (bool, default False): read photographs and weights in object stores without
            credentials
        allow_redirects (str | None, default None): hosts, by commas, that web servers may
            redirect to [their own]

    Returns:
        CheckSummary

    Raises:
        UsageError: an option is of another type, out of range, or contradicts another.
        FlowerrayError: the job can't be done as asked; the message says what to mend.
    """

def compare(
    images: str | PathLike[str],
    *,
    bases: str,
    out: str | PathLike[str],
    recipes: str = 'mlp',
    precision: Literal['auto', 'float32', 'bfloat16', 'float16', 'int8'] = 'auto',
    number: int = 1000000,
    price: float | None = None,
    weights: str | PathLike[str] = 'imagenet',
    seed: int = 0,
    uri_column: str | None = None,
    label_column: str | None = None,
    max_megapixels: float = 100.0,
    max_megabytes: float = 256.0,
    formats: str | None = None,
    read_timeout: float = 60.0,
    decode_timeout: float = 60.0,
    address: str | None = None,
    device: Literal['auto', 'cpu', 'gpu'] = 'auto',
    actors: int | None = None,
    threads: int | None = None,
    batch_size: int | None = None,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    allow_redirects: str | None = None,
) -> CompareSummary:
    """Try bases and recipes on a labelled set: errors, speed, cost, and which to take.

    Args:
        images (str | PathLike[str]): labelled photographs, as for `flowerray extract`
        bases (str): bases as for `flowerray extract`, with commas between; the first is what
            the others are compared with
        out (str | PathLike[str]): directory for BASE/features, BASE/RECIPE/classifier and
            compare.html; what is there already is not made again
        recipes (str, default 'mlp'): how heads are built and fitted, with commas between: mlp,
            logistic
        precision (Literal['auto', 'float32', 'bfloat16', 'float16', 'int8'], default 'auto'):
            arithmetic of the bases
        number (int, default 1000000): photographs that hours and cost are told for
        price (float | None, default None): what an hour of this machine costs, or of the
            cluster, in whatever currency
        weights (str | PathLike[str], default 'imagenet'): imagenet; a file of weights, or a
            directory with one, by its path or its address (s3://, gs://, az://, https://,
            hf://ORG/MODEL); or random (for smoke tests)
        seed (int, default 0): seed of split and training
        uri_column (str | None, default None): the table's column of photographs [uri, or the
            likeliest, which is said]
        label_column (str | None, default None): the table's column of classes [label, or the
            likeliest, which is said]
        max_megapixels (float, default 100.0): reject larger photographs before decoding them
        max_megabytes (float, default 256.0): reject larger files before reading them
        formats (str | None, default None): image formats to decode, with commas between, or
            all; what is in another is rejected [jpeg,png,webp,gif,bmp,tiff,ppm,avif]
        read_timeout (float, default 60.0): give a photograph up that is not read in so many
            seconds
        decode_timeout (float, default 60.0): give a photograph up that is not decoded in so
            many seconds
        address (str | None, default None): Ray cluster to run on (host:port or auto); without
            it, and outside a Ray job, a Ray of one node starts and stops with the command
        device (Literal['auto', 'cpu', 'gpu'], default 'auto'): what each actor computes on; gpu
            asks a cluster that scales from zero for GPU nodes
        actors (int | None, default None): Ray actors, each with its own base [one a GPU, and
            one a CPU elsewhere]
        threads (int | None, default None): CPU threads that each actor computes with [1, more
            where memory is short], or on a GPU decodes with [all CPUs beside the GPU]
        batch_size (int | None, default None): photographs in one forward pass [16, on a GPU
            128]
        endpoint_url (str | None, default None): address of the S3 server behind s3:// [AWS'
            own]
        anonymous (bool, default False): read photographs and weights in object stores without
            credentials
        allow_redirects (str | None, default None): hosts, by commas, that web servers may
            redirect to [their own]

    Returns:
        CompareSummary

    Raises:
        UsageError: an option is of another type, out of range, or contradicts another.
        FlowerrayError: the job can't be done as asked; the message says what to mend.
    """

def report(
    source: str | PathLike[str],
    *,
    out: str | PathLike[str] = 'report.html',
    thumbnails: int = 500,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    allow_redirects: str | None = None,
) -> ReportSummary:
    """Make one HTML page of a classifier or of labels, to look at and to correct labels on.

    Args:
        source (str | PathLike[str]): classifier that `flowerray train` wrote, or labels that
            `flowerray label` wrote
        out (str | PathLike[str], default 'report.html'): the page, one HTML file
        thumbnails (int, default 500): photographs shown at most, in all
        endpoint_url (str | None, default None): address of the S3 server behind s3:// [AWS'
            own]
        anonymous (bool, default False): read photographs and weights in object stores without
            credentials
        allow_redirects (str | None, default None): hosts, by commas, that web servers may
            redirect to [their own]

    Returns:
        ReportSummary

    Raises:
        UsageError: an option is of another type, out of range, or contradicts another.
        FlowerrayError: the job can't be done as asked; the message says what to mend.
    """

def export(
    labels: str | PathLike[str],
    *,
    format: Literal['csv', 'jsonl', 'labelstudio', 'fiftyone', 'folders'],
    out: str | PathLike[str],
    accepted_only: bool = False,
    min_confidence: float | None = None,
    copy: bool = False,
    url_root: str | PathLike[str] = '/',
    url_prefix: str | None = None,
    overwrite: bool = False,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    allow_redirects: str | None = None,
) -> ExportSummary:
    """Write labels for other tools: tables, Label Studio, FiftyOne, class folders.

    Args:
        labels (str | PathLike[str]): directory that `flowerray label` wrote
        format (Literal['csv', 'jsonl', 'labelstudio', 'fiftyone', 'folders']): csv, jsonl,
            labelstudio: one file; fiftyone, folders: a directory
        out (str | PathLike[str]): the file or directory to write
        accepted_only (bool, default False): leave out the labels that were not accepted
        min_confidence (float | None, default None): leave out the labels below this confidence
        copy (bool, default False): folders: copy the photographs instead of linking them
        url_root (str | PathLike[str], default '/'): labelstudio: the directory that --url-
            prefix stands for; for its own local files, LOCAL_FILES_DOCUMENT_ROOT
        url_prefix (str | None, default None): labelstudio: what takes the place of --url-root
            in front of each photograph's path [/data/local-files/?d=, where Label Studio serves
            local files]
        overwrite (bool, default False): fiftyone, folders: delete the earlier export in --out,
            start anew
        endpoint_url (str | None, default None): address of the S3 server behind s3:// [AWS'
            own]
        anonymous (bool, default False): read photographs and weights in object stores without
            credentials
        allow_redirects (str | None, default None): hosts, by commas, that web servers may
            redirect to [their own]

    Returns:
        ExportSummary

    Raises:
        UsageError: an option is of another type, out of range, or contradicts another.
        FlowerrayError: the job can't be done as asked; the message says what to mend.
    """

def package(
    classifier: str | PathLike[str],
    *,
    out: str | PathLike[str],
    format: Literal['onnx', 'openvino', 'keras'] = 'onnx',
    release: int = 1,
    weights: str | PathLike[str] = 'imagenet',
    overwrite: bool = False,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    allow_redirects: str | None = None,
) -> PackageSummary:
    """Write a classifier as one file that runs without flowerray: ONNX, OpenVINO or Keras.

    Args:
        classifier (str | PathLike[str]): directory that `flowerray train` wrote
        out (str | PathLike[str]): the file to write: NAME.onnx, NAME.xml (with NAME.bin) or
            NAME.keras; its model card is FILE.md
        format (Literal['onnx', 'openvino', 'keras'], default 'onnx'): onnx: for ONNX Runtime,
            and `flowerray label` and `predict`; openvino; keras. All compute in float32,
            whatever the classifier's precision
        release (int, default 1): your number of this package, in its card and in the file
        weights (str | PathLike[str], default 'imagenet'): imagenet; a file of weights, or a
            directory with one, by its path or its address (s3://, gs://, az://, https://,
            hf://ORG/MODEL); or random (for smoke tests)
        overwrite (bool, default False): replace FILE and its card where they are
        endpoint_url (str | None, default None): address of the S3 server behind s3:// [AWS'
            own]
        anonymous (bool, default False): read photographs and weights in object stores without
            credentials
        allow_redirects (str | None, default None): hosts, by commas, that web servers may
            redirect to [their own]

    Returns:
        PackageSummary

    Raises:
        UsageError: an option is of another type, out of range, or contradicts another.
        FlowerrayError: the job can't be done as asked; the message says what to mend.
    """

def baseline(
    images: str | PathLike[str],
    *,
    out: str | PathLike[str],
    limit: int = 25,
    top_k: int = 3,
    weights: str | PathLike[str] | None = None,
    class_names: str | PathLike[str] | None = None,
    uri_column: str | None = None,
    max_megapixels: float = 100.0,
    max_megabytes: float = 256.0,
    formats: str | None = None,
    read_timeout: float = 60.0,
    decode_timeout: float = 60.0,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    allow_redirects: str | None = None,
) -> BaselineSummary:
    """Show what VGG16 as published says of photographs, in ImageNet's classes.

    Args:
        images (str | PathLike[str]): directory (searched to any depth), a glob, a .txt list, or
            a .parquet or .csv table with a uri column; local, or s3://, gs://, az://, hdfs://,
            https://
        out (str | PathLike[str]): directory for baseline.parquet and baseline.png
        limit (int, default 25): photographs, taken evenly from all
        top_k (int, default 3): classes said of each photograph
        weights (str | PathLike[str] | None, default None): VGG16's weights with their top, a
            Keras .h5 of 528 MB, by its path or its address (as --weights of extract) [Keras'
            download]
        class_names (str | PathLike[str] | None, default None): Keras' imagenet_class_index.json
            [Keras' download]
        uri_column (str | None, default None): the table's column of photographs [uri, or the
            likeliest, which is said]
        max_megapixels (float, default 100.0): reject larger photographs before decoding them
        max_megabytes (float, default 256.0): reject larger files before reading them
        formats (str | None, default None): image formats to decode, with commas between, or
            all; what is in another is rejected [jpeg,png,webp,gif,bmp,tiff,ppm,avif]
        read_timeout (float, default 60.0): give a photograph up that is not read in so many
            seconds
        decode_timeout (float, default 60.0): give a photograph up that is not decoded in so
            many seconds
        endpoint_url (str | None, default None): address of the S3 server behind s3:// [AWS'
            own]
        anonymous (bool, default False): read photographs and weights in object stores without
            credentials
        allow_redirects (str | None, default None): hosts, by commas, that web servers may
            redirect to [their own]

    Returns:
        BaselineSummary

    Raises:
        UsageError: an option is of another type, out of range, or contradicts another.
        FlowerrayError: the job can't be done as asked; the message says what to mend.
    """
