"""Names of settings in other programs, and the settings of gptexp that correspond to them. No torch."""

from __future__ import annotations

# The names that other programs use for each setting. The value is kept.
SETTINGS = {
    "name": ("run_name", "experiment_name", "exp_name"),
    "seed": ("random_seed", "manual_seed"),
    "resume": ("resume_from", "resume_from_checkpoint", "ckpt_path"),
    "init_from": ("pretrained", "checkpoint", "ckpt", "load_from", "from_pretrained"),
    "hydra.run.dir": ("out_dir", "output_dir", "save_dir", "run_dir"),
    "paths.logs": ("log_dir", "logdir", "logging_dir"),
    "data": ("dataset",),
    "data.path": ("data_path", "data_dir", "input_file", "train_file", "file", "text", "corpus"),
    "data.val_path": ("val_file", "validation_file", "eval_file"),
    "data.global_batch_size": ("batch_size", "train_batch_size", "global_batch_size", "total_batch_size", "bs"),
    "data.micro_batch_size": ("per_device_train_batch_size", "device_batch_size"),
    "data.num_workers": ("workers", "dataloader_num_workers"),
    "model.n_layer": ("n_layers", "num_layers", "num_hidden_layers", "layers", "depth"),
    "model.n_head": ("n_heads", "num_heads", "num_attention_heads", "heads"),
    "model.n_embd": ("n_embed", "d_model", "hidden_size", "embed_dim", "embedding_dim", "dim", "width"),
    "model.block_size": (
        *("block_size", "context_length", "context_size", "seq_len", "seq_length", "sequence_length"),
        *("max_seq_len", "max_seq_length", "max_length", "n_ctx", "ctx_len"),
    ),
    "optimizer": ("optim",),
    "optimizer.lr": ("lr", "learning_rate", "learningrate", "max_lr"),
    "optimizer.weight_decay": ("wd",),
    "schedule": ("scheduler", "lr_scheduler", "lr_scheduler_type", "lr_schedule"),
    "schedule.warmup_steps": ("warmup_iters", "warmup", "num_warmup_steps"),
    "tokenizer.vocab_size": ("n_vocab",),
    "trainer.accelerator": ("device", "device_type"),
    "trainer.devices": ("gpus", "num_gpus", "n_gpus", "ngpus", "n_gpu", "nproc_per_node"),
    "trainer.max_steps": ("steps", "num_steps", "n_steps", "train_steps", "max_iters", "iters", "iterations"),
    "trainer.max_flops": ("flops", "target_flops"),
    "trainer.tokens_per_parameter": ("target_param_data_ratio", "tokens_per_param"),
    "trainer.max_time": ("time_limit", "time_budget"),
    "trainer.val_every_steps": ("eval_interval", "eval_steps", "eval_every", "val_interval", "val_check_interval"),
    "trainer.log_every_steps": ("log_interval", "logging_steps", "log_every", "log_every_n_steps"),
    "trainer.precision": ("dtype",),
    "callbacks.checkpoint.every_steps": ("save_steps", "save_interval", "save_every", "checkpoint_interval"),
}
EPOCHS = "the length of a run is given in optimizer steps; write trainer.max_steps=N"
# Advice for names that correspond to no single setting.
SENTENCES = {
    **dict.fromkeys(("epochs", "epoch", "num_epochs", "n_epochs", "max_epochs", "num_train_epochs"), EPOCHS),
    **dict.fromkeys(
        ("gradient_accumulation_steps", "grad_accum", "grad_accum_steps", "accumulate_grad_batches"),
        "write data.global_batch_size=N for the batch of a step and data.micro_batch_size=N for that of a forward pass",
    ),
    **dict.fromkeys(("min_lr",), "write schedule.min_lr_ratio=…, a fraction of optimizer.lr"),
    **dict.fromkeys(("cuda", "gpu", "cpu", "mps", "use_cuda", "no_cuda"), "write trainer.accelerator=cpu, gpu or mps"),
    **dict.fromkeys(("bf16", "fp16", "fp32"), "write trainer.precision=bf16-mixed, 16-mixed or 32-true"),
    **dict.fromkeys(("wandb", "wandb_log", "use_wandb", "report_to"), "write logger=wandb"),
    **dict.fromkeys(("dry_run", "dryrun"), "write dry_run=true"),
    **dict.fromkeys(("lr_decay_iters",), "the learning rate decays until trainer.max_steps"),
}
PUBLISHED = {"gpt2": "gpt2_small", "gpt2-medium": "gpt2_medium", "gpt2-large": "gpt2_large", "gpt2-xl": "gpt2_xl"}
WORDS = {word: setting for setting, words in SETTINGS.items() for word in words}


def hint(word: str, value: str) -> str | None:
    """Return advice for a name that another program uses; None if the name is unknown."""
    word = word.lower().replace("-", "_")
    if word in ("device", "device_type"):
        value = {"cuda": "gpu", "cuda:0": "gpu"}.get(value, value)
    return SENTENCES.get(word) or (f"write {WORDS[word]}={value}" if word in WORDS else None)


def published(option: str) -> str | None:
    """Return advice for the name of a published model that is given as an option of model; None if it is unknown."""
    name = option.replace("_", "-")
    preset = PUBLISHED.get(name)
    return preset and f"model={preset} trains this size from scratch; init_from={name} starts from OpenAI's weights"
