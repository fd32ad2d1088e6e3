"""Messages without an example in the files beside this: where their example is, or why there is none.

A message is named by its words, with a `{}` for each value; one that is made elsewhere, by the code that raises it.
"""
# ruff: noqa: E501
# fmt: off

# the test that makes the package say it -> the words
SEEN_IN = {
    "tests/data/test_remote.py": [
        "it cannot be kept in {}: {}",
        "{} failed with {} photos in a row, and is not asked any more",
        "it is no URL of a photo; mend it",
        "<ValueError(f'no host in {url!r}')>",
        "the server's answer is cut off or no HTTP",
        "the file has more than {} MiB",
        "the photo did not come within {} s",
        "the answer is cut off: {} of {} bytes",
        "there is no such photo",
        "<UnreadError('it is a folder')>",
        "you may not read it: {}",
        "it did not come within {} s",
        "it cannot be read: {}",
    ],
    "tests/data/test_pipeline.py": [
        "<CatalogError(_named(catalogs, *found))>",
        "A photo could not be read, though all of them can be read now. Start again; if this comes back, copy the photos to a disk of this machine.",
        "<ValueError(f'{UNREAD}{file}{UNREAD}{error}{UNREAD}')>",
        "<CatalogError(reasons.unreadable_message([why], len(catalog)))>",
    ],
    "tests/data/test_listings.py": [
        "{} is a Parquet file, which pyarrow reads. Install it: pip install \"eet-tf[parquet]\".{}",
        "{} is an Excel file, which openpyxl reads. Install it: pip install \"eet-tf[xlsx]\"",
    ],
    "tests/cli/test_export_pretrained.py": [
        "--{} needs --backbone. Received: --{}={}, without it.",
        "--prefix needs --model. With --backbone, --data and --whiten_dim shorten vectors. Received: --prefix={}, without it.",
        "--whitening must be left out with --data, whose photos teach one. Received: --whitening={} and --data={}.",
        "--{} needs --data. Received: --{}={}, without it.",
        "--weights must be given for a backbone of the list: imagenet, or the path of a file. Received: none, and --backbone={}.",
    ],
    "tests/embedder/test_hub.py": [
        "`weights` must be None, for those of the preset, or a path. Received: weights={} and backbone={}.",
        "`backbone` must be {} and a preset of keras-hub or a folder of one. Received: backbone={}: {}.",
        "`pixel_scaling` must be given for a preset without an image converter: one of {}. Received: pixel_scaling=None and backbone={}.",
    ],
    "tests/embedder/test_own_backbone.py": [
        "`backbone` must be a Keras model. Received: backbone={}, which holds a {}.",
    ],
    "tests/end_to_end/test_train_pretrained.py": [
        "--projection must be random with --strategy=multi_worker. Received: --projection=whitening.",
        "--pooling must be given with --strategy=multi_worker for a backbone that is not in the list. Received: none, and --backbone={}.",
    ],
    "tests/end_to_end/test_addons.py": [
        "--loss=tfa_npairs needs an even --examples_per_class, as it takes the photos of a product in pairs. Received: --examples_per_class={}.",
        "--ema needs an optimizer of Keras: adam, adamw or sgd. Received: --optimizer={}.",
    ],
    "tests/end_to_end/test_prefixes_and_teachers.py": [
        "--search_prefix is for --index=scann. Received: --index={}.",
        "--teacher must be a folder that `eet embed` wrote, or a model: a SavedModel, a training's folder or a .keras file. Received: --teacher={}.",
        "--teacher must be a folder that `eet embed` wrote where several workers train: each reads it. Received: --teacher={} with --strategy=multi_worker.",
        "--embedding_dim must be the {} of --teacher. Received: --embedding_dim={}.",
        "--prefixes must ascend to the {} of --embedding_dim, since dimensions behind the last prefix are not trained. "
        "Received: --prefixes={}.",
        "--prefixes needs a loss of this package. Received: --loss={}.",
        "--{} needs --teacher. Received: --{}={} without it.",
        "--loss=none needs --teacher: there is nothing to learn. Received: no --teacher.",
        "--teacher needs a loss of this package, or none. Received: --loss={}.",
        "--teacher_references needs a loss, whose references they are. Received: --loss=none.",
    ],
    "tests/end_to_end/test_compare.py": [
        "give {} of all, or of none: figures in the whole catalogue are lower. Received: {}.",
        "{} does not exist. Give the folder of a finished training, or a classes.csv.",
        "give two results: eet compare FIRST SECOND. Received: {}.",
    ],
    "tests/end_to_end/test_service_page.py": [
        "`port` must be free at `host`. Received: --host={} --port={}: {}. Name another port, or end what listens there.",
        "the page needs {}: pip install 'eet-tf[demo]'",
    ],
    "tests/end_to_end/test_embed_beam.py": [
        "`eet embed` needs Apache Beam: pip install 'eet-tf[beam]'",
        "{}\nAll others are embedded. Then run the same command again.",
    ],
    "tests/end_to_end/test_evaluate.py": [
        "it must be of embeddings of {} dimensions, which this model has. Received: one of {}.",
        "--whitening_dim needs --fit_whitening: a file of a whitening has its dimensions.",
        "--query_expansion must be 0 with --rerank, which searches with the queries as they are.",
        "--gallery must show products of --data, with the same skus. Received: {}, ... in --data, {}, ... in --gallery.",
        "--gallery cannot be given with --query_expansion or --rerank.",
    ],
    "tests/end_to_end/test_export_and_search.py": [
        "a query must be a photo. Received: --query={}: {}.",
        "a query must be a JPEG, PNG, WebP, BMP or GIF. Received: --query={}: {}.",
    ],
    "tests/end_to_end/test_index_admin.py": [
        "--target_recall is for --index=scann. Received: --index={}, which tunes nothing.",
        "--storage must be float32 with --index=milvus. Received: --storage={}.",
        "--{} is for --index=milvus. Received: --index={}.",
        "{} must have the index's attributes. It lacks {}.",
        "delete must be told --photo or --sku. Received: neither.",
        "delete must be told --photo or --sku. Received: both. Give two commands.",
    ],
    "tests/cli/test_loss_flags.py": [
        "--loss must be one of {}; or several of {} with + between, each once. Received: --loss={}.",
        "--loss_weights must be numbers of at least 0 with commas between, one for each loss of --loss. Received: "
        "--loss_weights={}, --loss={}.",
        "--loss_weights needs several losses, e.g. --loss=eet+normalized_softmax. Received: --loss_weights={}, "
        "--loss={}.",
        "--{} needs --loss with {}. {}",
        "<complaints.add(f'--{flag} needs {needed}. {_received(flag, other)}')>",
        "--memory_size needs a loss that compares photos with each other, e.g. --loss=supervised_contrastive+{}. "
        "Received: --memory_size={}, --loss={}.",
        "--margin must be from 0 to 3.14 radians for arcface. Received: --margin={}.",
        "--sampled_classes must be at least the {} products in a batch. Received: --sampled_classes={}.",
    ],
    "tests/end_to_end/test_recipes.py": [
        "<complaints.add(recipe)>",
        "--recipe={} needs --weights, since it keeps most of what a network knows. Received: none. Give weights, or "
        "--recipe={}.",
    ],
    "tests/end_to_end/test_train.py": [
        "--weights must be none, imagenet or the path of a backbone's weights. Received: --weights={}.",
        "--warmup_steps needs --schedule=cosine. Received: --schedule=step.",
        "--photo_crop needs photos as they are. Received: --cache, which keeps squares. Leave it out.",
        "--category_probability needs categories, and {} has none. Name a column with --category_column; there are {}.",
        "--loss={} needs --attributes=COLUMN,COLUMN or --attributes=all; {} has the columns {}.",
    ],
    "tests/end_to_end/test_workers.py": [
        "TF_CONFIG names {} workers, which only --strategy=multi_worker lets train together. Received: --strategy={}. Change it, or unset TF_CONFIG.",
        "The workers were given different flags. Give all of them the same ones.",
        "The workers have different photos or products. This one read {}.",
        "--model_dir must be one folder that all workers share. Received: --model_dir={}, in which this one finds {} epochs, and another worker sees another folder.",
    ],
    "tests/index/milvus/test_milvus.py": [
        "`index` must be an ExactIndex or a ScannIndex. Received: one of kind '{}', whose rows are not in this process.",
        "`k` must be at most {} with Milvus. Received: k={}. Ask for fewer neighbours, or use ScannIndex.",
        "the index could not be written to '{}': {}. Its photos are in the collection '{}' at {}: save it to another folder, or drop that with Milvus's own tools.",
        "<missing_package('milvus-lite')>",
        "the Milvus server at {} must keep each photo once. Received: {} rows of {}. Was the connection interrupted, or somebody writing? Try again.",
    ],
    "tests/index/milvus/test_milvus_away.py": [
        "the Milvus collection '{}' must exist. Received: a server that has none of that name. Was it dropped? Run `eet index build` again.",
        "{} An update is in '{}' and is made by the next update or load. To give it up, build the index anew in another folder.",
        "the Milvus server at {} must be {} or newer. Received: {}. Update it.",
        "Milvus must {}. Received: no progress for {} seconds ({}). Look into its log: has it memory and disk left?",
        "<unreachable(uri, said_by(why))>",
        "the Milvus server at {} must take the token in the environment variable {}, which is {}. Received: {}. Set it to `user:password`; or is this port not Milvus's{}, or the server still starting?",
        "<missing_package('pymilvus')>",
    ],
    "tests/index/milvus/test_milvus_cluster.py": [
        "`compact` must find a database in its folder. Received: the cluster {}, which compacts by itself.",
        "the collection '{}' must give all the photos it counts. Received: {} of {}. Is somebody writing to it? Then try again; else build the index again.",
        "the index of the collection '{}' must be built. Received: {} of {} rows, and it does not grow, so searches are slow and find less. Build the index again with `eet index build`; if that does not help, look into the server's log.",
    ],
    "tests/index/test_updates.py": [
        "<self._refusal(condition, None, _holding(condition, value, f'a {kind}'))>",
        "<self._refusal(condition, None, _holding(condition, value, 'a number'))>",
    ],
    "tests/index/test_tuning.py": [
        "`target_recall` must be within reach. Received: target_recall={}; the most that was measured is {}, with {}. Ask for less, keep vectors as float32, or use ExactIndex.",
    ],
    "tests/serving/test_bundle.py": [
        "Input {} of signature {} must be string [None] or uint8 [None, None, None, 3]. Received: {} {}. Export the model without that signature.",
        "`batch_sizes` must make at most {} warm-up requests. Received: {} sizes for {} signatures.",
        "The bundle is not fit to be served and was thrown away:\n{}",
    ],
    "tests/serving/test_client.py": [
        "{}{}more than the {} bytes that fit into one message",
        "{}{}which the server at {} does not take ({})",
        "<self._translated(error, signature, timeout)>",
        "<TooLargeError(f'HTTP {status}, {details}')>",
        "<TransientError(f'HTTP {status}, {details}')>",
        "<not_found(self._target, self._model, self._version, self._states(timeout), details)>",
        "<refusal(self._target, self._model, signature, details)>",
        "the server at {} does not answer as TensorFlow Serving does: {}. Is this the address of its REST API?",
    ],
    "tests/service/test_service.py": [
        "`photo_root` must be the folder of the catalogue's photos. Received: '{}', in which there is no {} (a link that leads out of it does not count). Name the right one with --photo_root.",
        "This photo cannot be shown: {}.{}{}",
        "Choose a photo first.{}{}",
        "<_Refusal(_NO_PHOTO.format(reasons.without_command(reasons.of_bytes(content, most))), 413)>",
        "<_Refusal(_NO_PHOTO.format(reasons.without_command(reasons.of_bytes(content))), 415)>",
        "This photo is not in the catalogue.{}{}",
        "The number of photos must be 1 to {}. Received: {}.{}{}",
    ],
    "tests/serving/test_publishing.py": [
        "{} Others are served as before. Export it again: a server tries a version once, until it is started anew.",
        "{} That was after {} s. Look at the server's log: does it run, and read this folder and its models.config? Then run the same command again.",
    ],
    "tests/serving/test_search_graph.py": [
        "error: --op_library={} cannot be loaded: {}",
    ],
    "tests/serving/test_verify.py": [
        "<Unreadable('files', Fault(f'{error.strerror}', str(error.filename)))>",
        "files{}cannot be read: {}{}{}",
        "version {} is not available; the server has {}",
        "error: {} must be a bundle, a model's folder or a folder with one model{}.",
        "`eet verify` takes the folder of a bundle",
        "error: {} must be named by its version for --server.",
        "<bundle_files.Unreadable('server', fault)>",
    ],
    "tests/training/test_addons.py": [
        "`distance` must be 'euclidean' for {}. Received: distance={}.",
        "`soft_margin` must be False for {}: Addons has none. Received: soft_margin=True.",
        "`y_true` must be labels of pairs for tfa_npairs. Received: {} labels.",
        "`weight_decay` must be 0 for {}. Received: weight_decay={}.",
    ],
    "tests/embedding/test_beam.py": [
        "<EmbeddingPipelineError(f'a flag of Beam: {error}.')>",
        "unknown flag {}: neither this script nor Beam has it. See --help.",
    ],
    "tests/cli/test_door.py": [
        "{}\n`{} --help` shows the flags.",
        "`{}` takes flags only, which begin with --. Received: {}. See --help.",
        "--{} must be a finite number. Received: --{}={}.",
        "error: --tolerance must be a finite number. Received: --tolerance={}.",
    ],
    "tests/convert/test_convert.py": [
        "<_CannotConvertError(why)>",
        "<_CannotConvertError(_cannot_open(what))>",
        "its colours are floating-point numbers, of which nobody says what is white",
    ],
    "tests/training/test_learner.py": [
        "`steps_per_execution` must be 1 where replicas share a batch: in a loop over steps TensorFlow mixes up what they tell each other. Received: steps_per_execution={}.",
    ],
    "tests/cli/test_paths.py": [
        "error: arguments must be UTF-8. Received: {}. Rename what they name.",
    ],
    "tests/training/test_workers.py": [
        "`workers.fit` must be called outside the scope of the strategy that made the learner.",
        "`metrics` must be left out of `compile` where several workers train: they would be averaged over workers, which is right for a mean alone. Measure the saved embedder instead.",
        "TF_CONFIG's address of this worker must be free. Received: {}: {}. Another training, or one that was killed a moment ago?",
    ],
    "tests/cli/test_wrong_flags.py": [
        "--target_recall must be above 0, at most 1. Received: --target_recall={}.",
        "--server must be host:port of a server's gRPC. Received: --server={}.",
        "--stopped says that no server runs. Received: --server beside it.",
        "--by must be columns, separated by commas. Received: --by={}.",
        "--gallery must be a catalogue, as --data is. Received: --gallery={}.",
    ],
}

# a test could show these, and none does yet: take a line away here when you write it
OWED = [
    "the collection '{}' must hold vectors of length 1. Received: another for '{}'. Add that photo again.",
    "<refusal(self.contents.parent, f'{error}', name=self.contents.name, mend=mend)>",
    "{}{}is now one of kind '{}', not 'milvus'{}Load it again.",
    "<wrong_outputs(self.target, self.model, signature, missing)>",
    "the label {} of {} at {} does not lead to version {} after {} s: {} Look at the server's log, and run the same command again.",
    "a worker does not see the folder {}",
    "`where['{}']` must be met by fewer texts with Milvus. Received: {}, which {} different ones contain, more than one question holds. Look for a longer text.",
    "`{}` must be at most {} strings for each photo with Milvus. Received: {} in row {}. Leave out those that nobody searches by, or use ScannIndex.",
    "Interrupted. The same command goes on from the last whole epoch.",
    "name at least one photo to search with: eet search photo.jpg. Received: none.",
    "{} cannot be read. Give yourself the right to read it.",
    "<_stopped(f'its state is {result.state}')>",
    "{} of more than {} million pixels; make it smaller",
    "--index_dir must be of kind scann or exact. Received: milvus, which lists no rows.",
]

# says on what another site has said
SAID_ON = [
    "<CommandError(str(error))>",
    "<_CannotConvertError(str(error))>",
    "<UnreadError(why)>",
    "<UnreadError(f'{failed}{times}')>",
    "<_of_status(error)>",
    "<_of_connection(error.reason, url, timeout)>",
    "<_of_connection(error, url, timeout)>",
    "<sys.exit(main())>",
    "<_stopped(str(error).strip() or repr(error))>",
    "<self.add(str(error))>",
    "<self.add(os_error_text(error))>",
    "<self.add(f'--{flag}={value}: {error}')>",
    "<self.add(f'--{flag}={value}: {os_error_text(error)}')>",
    "<_Refusal(str(error), 400)>",
    "<ValueError(f'{catalog.source}: {error}')>",
    "<ValueError(str(error))>",
    "<sys.exit(1)>",
    "<sys.exit(1 if failed else 0)>",
]

# the words that no test can show -> why
NO_EXAMPLE = {
    "module {} has no attribute {}": "Python's own words for a name that a module does not have",
    "<AttributeError(attribute)>": "Python's own words for a name that a module does not have",
    "gRPC needs tensorflow-serving-api: pip install 'eet-tf[serving]'. Or use REST, e.g. 'http://host:8501'. ({})": "without tensorflow-serving-api, which the tests have",
    "<sys.exit(1)>": "who read the output has gone: nobody reads words",
    "it cannot be written: {}": "a disk that fails while a photo is converted",
    "{} cannot be replaced ({}). Give a new folder inside it.": "another process makes the folder between a look and the renaming",
    "be one value per photo{}{}": "`checked_attributes` refuses the shape before, in words of its own",
    "<FileNotFoundError(source)>": "caught where it is raised: the file of a pending update is gone",
    "{}{}{}{}to a new client": "a connection that ended on the way, which is made anew",
    "<MemoryError(out_of_memory(error, self._logged.images))>": "a step that does not fit into the memory of a device; tests/training/test_compilation.py reads its words",
    "<GpuError(error.message.partition('\\n')[0])>": "only a GPU that fails: ranking then goes on without it",
    "A bundle needs tensorflow-serving-api: pip install 'eet-tf[serving]'.": "without tensorflow-serving-api, which the tests have",
    "<MemoryError(out_of_memory(error, learner.images_shape))>": "as of MetricLearner, with several workers",
    "--bundle needs tensorflow-serving-api: pip install 'eet-tf[serving]'. {}": "without tensorflow-serving-api, which the tests have",
    "error: a bundle is verified with tensorflow-serving-api: pip install 'eet-tf[serving]'.": "without tensorflow-serving-api, which the tests have",
}
