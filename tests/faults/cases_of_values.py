"""Values of the wrong type or range, and misspelt words: what can be known from the configuration."""

from tests.faults.harness import Case

# Words of the command line -> message. All are refused for every task before anything is built.
_VOC = {
    # The trainer.
    "trainer.max_epochs=abc": r"trainer\.max_epochs.*abc",
    "trainer.max_epochs=-3": r"trainer\.max_epochs.*-3",
    "trainer.max_epochs=0": r"trainer\.max_epochs.*0",
    "trainer.max_epochs=null": r"trainer\.max_epochs",
    "trainer.precision=fp7": r"trainer\.precision.*fp7",
    "trainer.check_val_every_n_epoch=0": r"trainer\.check_val_every_n_epoch.*0",
    "trainer.check_val_every_n_epoch=abc": r"trainer\.check_val_every_n_epoch.*abc",
    "trainer.gradient_clip_val=-1": r"trainer\.gradient_clip_val.*-1",
    "trainer.gradient_clip_val=abc": r"trainer\.gradient_clip_val.*abc",
    "trainer.accumulate_grad_batches=0": r"trainer\.accumulate_grad_batches.*0",
    "trainer.accelerator=gpu": "no GPU is visible",
    "trainer.accelerator=gpuu": r"trainer.*gpuu",
    "trainer.devices=0": r"trainer.*devices.*0",
    "trainer.max_epoch=3": r"trainer\.max_epoch\b",
    "+trainer.max_epoch=3": r"trainer\.max_epoch: .*takes no 'max_epoch'",
    # The optimizer and its schedule.
    "optimizer.lr=abc": r"optimizer\.lr.*abc",
    "optimizer.lr=-1": r"optimizer\.lr.*-1",
    "optimizer.lr=nan": r"optimizer\.lr.*nan",
    "optimizer.weight_decay=-1": r"optimizer.*weight_decay.*-1",
    "optimizer.learning_rate=1": r"optimizer\.learning_rate",
    "scheduler.warmup_steps=abc": r"scheduler\.warmup_steps.*abc",
    "scheduler.warmup_steps=-1": r"scheduler\.warmup_steps.*-1",
    # Seeds and threads.
    "seed=abc": r"seed.*abc",
    "seed=-1": r"seed.*-1",
    "seed=1.5": r"seed.*1\.5",
    "seed=null": "seed",
    "threads=0": r"threads.*0",
    "threads=-2": r"threads.*-2",
    "threads=abc": r"threads.*abc",
    "task=compare seeds=abc": r"seeds.*abc",
    "task=compare seeds=3": r"seeds.*3",
    "task=compare seeds=[]": r"seeds",
    "task=compare seeds=[0,0]": r"seeds.*0",
    "task=compare seeds=[0,a]": r"seeds.*a",
    # Distillation.
    "kd.enabled=flase": r"kd\.enabled.*flase",
    "kd.enabled=null": r"kd\.enabled",
    "kd.temperature=2 loss=[task_ce,cosine_features]": r"kd\.temperature: nothing reads it",
    "+student.inputs.imag=image": r"student\.inputs\.imag: .*forward takes no 'imag'. Did you mean 'image'",
    "kd.alpha=abc": r"kd\.alpha.*abc",
    "kd.alpha=-0.1": r"kd\.alpha=-0\.1",
    "kd.alpha=1.5": r"kd\.alpha=1\.5",
    "kd.alpha=nan": r"kd\.alpha.*nan",
    "kd.temperature=abc": r"kd\.temperature.*abc",
    "kd.temperature=0": r"kd\.temperature=0",
    "kd.temperature=-1": r"kd\.temperature=-1",
    "kd.temperature=nan": r"kd\.temperature.*nan",
    "kd.temperature=inf": r"kd\.temperature.*inf",
    "kd.temperature=null": r"kd\.temperature",
    "kd.temprature=3": r"kd\.temprature: no such key",
    "+kd.temprature=3": r"kd\.temprature: no such key",
    "kd.teacher_cache.enabled=maybe": r"kd\.teacher_cache\.enabled.*maybe",
    "kd.teacher_cache.views=0": r"kd\.teacher_cache\.views=0",
    "kd.teacher_cache.views=abc": r"kd\.teacher_cache\.views.*abc",
    "kd.teacher_cache.map_dtype=float8": r"kd\.teacher_cache\.map_dtype=float8",
    # Losses and metrics.
    "loss=[]": "loss",
    "loss=[task_ce,task_ce]": r"loss.*task_ce",
    "loss=[task_ce,kl_logitz]": r"kl_logitz: no such choice",
    "loss.task_ce.weight=nan": r"loss\.task_ce\.weight.*nan",
    "loss.task_ce.weight=inf": r"loss\.task_ce\.weight.*inf",
    "loss.task_ce.weight=abc": r"loss\.task_ce\.weight.*abc",
    "loss.task_ce.weight=null": r"loss\.task_ce\.weight",
    "loss.task_ce.wieght=1": r"loss\.task_ce\.wieght",
    "loss.task_ce.inputs.logits=logits": r"loss\.task_ce\.inputs.*'logits'",
    "loss.task_ce.inputs.logits=student.logit": r"loss\.task_ce\.inputs: student\.features has no 'logit'",
    "loss.task_ce.inputs.target=batch.targets": r"'batch\.targets' is read",
    "+loss.kl_logits.fn.temprature=3": r"loss\.kl_logits\.fn\.temprature.*'temperature'",
    "loss.kl_logits.fn._target_=kd_runner.losses.kl_logit.KLLogits": r"loss\.kl_logits\.fn\._target_: no 'kl_logit'",
    "metric=[]": "metric|monitor",
    "monitor=mIoU": r"monitor.*mIoU",
    "monitor=null": "monitor",
    # Data.
    "data.batch_size=0": r"data\.batch_size=0",
    "data.batch_size=-1": r"data\.batch_size=-1",
    "data.batch_size=abc": r"data\.batch_size.*abc",
    "data.batch_size=2.5": r"data\.batch_size.*2\.5",
    "data.batch_size=500": r"data\.batch_size=500 exceeds the 12 samples",
    "data.unlabeled_batch_size=0": r"data\.unlabeled_batch_size=0",
    "data.val_batch_size=0": r"data\.val_batch_size.*0",
    "data.val_batch_size=abc": r"data\.val_batch_size.*abc",
    "data.steps_per_epoch=0": r"data\.steps_per_epoch.*0",
    "data.steps_per_epoch=-1": r"data\.steps_per_epoch.*-1",
    "data.steps_per_epoch=abc": r"data\.steps_per_epoch.*abc",
    "data.num_workers=-1": r"data\.num_workers.*-1",
    "data.num_workers=abc": r"data\.num_workers.*abc",
    "data.train.split=trian": "Did you mean 'train'",
    "data.train.transform.crop=0": r"data\.train\.transform: crop=0",
    "data.train.transform.crop=abc": r"data\.train\.transform.*abc",
    "data.train.transform.scale=[2.0]": r"data\.train\.transform.*scale",
    "data.root=???": r"data\.root is not set",
    "data.root=nowhere": r"nowhere does not exist",
    "data.class_names=[a]": r"class_names.*1 name",
    # Models.
    "student.net.num_classes=12": "class-count mismatch: student has 12, teacher 11",
    "student.net.num_classes=0": r"student\.net.*num_classes.*0",
    "student.net.width_mult=-1": r"student\.net.*width_mult.*-1",
    "student.net.stem_stride=3": r"student\.net.*stem_stride=3",
    "student.net.width_mul=1": r"student\.net\.width_mul",
    "student.channels_last=maybe": r"student\.channels_last.*maybe",
    "teacher.features.low=backbone.layr1": r"teacher\.features\.low: .*no module 'backbone\.layr1'",
    "student.features.high=features": r"student\.features\.high: module 'features' exists but is never called",
    "teacher.checkpoint=null": r"teacher\.checkpoint is null",
    # Choices.
    "experiment=voc_kdd": r"voc_kdd: no such choice. Did you mean 'voc_kd'",
    "task=trian": r"task.*trian",
    "run=compare": r"task",
    "scale=medium": r"medium",
    "trainer=tpu": r"trainer=tpu: no such choice",
    "logger=tensorbord": r"tensorbord: no such choice. Did you mean 'tensorboard'",
    "optimizer=adamm": r"adamm: no such choice. Did you mean 'adamw'",
    "seeds=[0,1": r"seeds",
    "pruning=half pruning.heads.ratio=2": r"pruning.*ratio.*2",
    "pruning=half pruning/score=taylr": r"taylr: no such choice. Did you mean 'taylor'",
    "export.tolerance=abc": r"export.*tolerance.*abc",
    "export.samples=-1": r"export.*samples.*-1",
    "resume=nowhere": r"resume.*nowhere",
}

# The same kinds in the other systems.
_EVERYWHERE = {
    "data.batch_size=5000": r"data\.batch_size=5000 exceeds",
    "data.root=nowhere": "nowhere",
    "kd.enabled=flase": r"kd\.enabled.*flase",
    "optimizer.lr=-1": r"optimizer\.lr.*-1",
    "trainer.max_epochs=abc": r"trainer\.max_epochs.*abc",
    "monitor=mIoU": r"monitor.*mIoU",
    "loss=[]": "loss",
    "teacher.checkpoint=nowhere/t.pth": r"teacher\.checkpoint: no file nowhere/t\.pth",
    "teacher.net.nothing=1": r"teacher\.net\.nothing",
    "data.steps_per_epoch=0": r"data\.steps_per_epoch.*0",
}
_OWN = {
    "unet": {
        "teacher.net.roi_width=40": r"teacher\.net.*roi_width=40",
        "teacher.net.encoder_name=resnet_x": r"teacher\.net.*encoder_name=resnet_x",
        "data.train.category=persn": "no category 'persn' .*Did you mean 'person'",
        "data.train.max_rois=0": r"max_rois=0",
        "data.train.augment.box_noise=0.5": r"box_noise=0\.5",
        "data.train.augment.scale=[2,1]": r"scale=\[2, 1\]",
        "loss.roi_distance.fn.width=0": r"loss\.roi_distance\.fn.*width must be above 0",
    },
    "orion": {
        "loss.orion_detection.weight=nan": r"loss\.orion_detection\.weight.*nan",
        "teacher.net.num_query=0": r"teacher\.net.*num_query.*0",
        "teacher.features.block_low=img_backbone.block.0": r"teacher\.features\.block_low.*img_backbone\.block\.0",
    },
    "bevfusion": {
        "+loss.crd.fn.temperature=0": r"loss\.crd\.fn.*temperature must be above 0",
        "loss.crd.fn.num_negatives=400": r"loss\.crd\.fn.*num_negatives=400",
        "loss.box_response.fn.radius=0": r"loss\.box_response\.fn.*radius must be above 0",
        "loss.label_distillation.fn.threshold=2": r"loss\.label_distillation\.fn.*threshold=2",
        "data.voxel_size=[0,0,0]": r"voxel_size",
    },
}

# What is not refused today is at least soon over.
_SHORT = "logger=none trainer.max_epochs=1 "
_SHORTER = _SHORT + "export=none callbacks=[checkpoints] "


def _voc(words: str) -> str:
    """The words of a case, behind those that leave out what the case does not need."""
    if words.startswith(("task", "run", "logger", "scale", "experiment")):
        return words
    return (_SHORT if words.startswith("export") else _SHORTER) + words


CASES = {f"voc {words}": Case("voc", _voc(words), message) for words, message in _VOC.items()}
for _system, _more in _OWN.items():
    for _words, _message in {**_EVERYWHERE, **_more}.items():
        CASES[f"{_system} {_words}"] = Case(_system, _SHORTER + _words, _message)
