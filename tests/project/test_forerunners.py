"""The options of the forerunners, all of which their users find again."""

import re

import pytest

import convert_dataset
from library.configuration.reader import read_options
from project.optimizers import OPTIMIZERS
from project.settings import read_settings
from run import COMMANDS
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _beside_the_files(monkeypatch):
    monkeypatch.chdir(ROOT)


# Every option of the forerunners, as `key: spellings value`; a value in quotes is several words.
OPTIONS = """
config_file: --config_file -cf project.yaml
config_set: --config_set -cs gtx1080ti
hyperparameter_file: --hyperparameter_file -hpf hyperparameters.yaml
hyperparameter_set: --hyperparameter_set -hps mobilenet
model: --model -m latest
data_dir: --data_dir -dd data
model_dir: --model_dir -md models
best_model_dir: --best_model_dir -bmd best
export_dir: --export_dir -ed exports
train_epochs: --train_epochs -te 3
epochs_between_evals: --epochs_between_evals -ebe 3
batch_size: --batch_size -bs 3
train_batch_size: --train_batch_size -tbs 3
eval_batch_size: --eval_batch_size -ebs 3
max_train_steps: --max_train_steps -mts 3
max_eval_steps: --max_eval_steps -mes --eval_freq 3
learning_rate: --learning_rate -lr 0.5
random_seed: --random_seed -rs 3
validate_only: --validate
checkpoint: --validation_checkpoint -vc run
validation_name: --validation_name -vn name
save_summary_steps: --save_summary_steps -sss 3
keep_checkpoint_max: --keep_checkpoint_max -kcm 3
stop_threshold: --stop_threshold 0.5
parallel_interleave_sources: --parallel_interleave_sources -pis 3
num_parallel_reads: --num_parallel_reads -npr 3
num_parallel_calls: --num_parallel_calls -npc 3
prefetch_examples: --prefetch_examples -pre 3
prefetch_batches: --prefetch_batches -pb 3
prefetch_to_device: --prefetch_to_device -ptd 3
xla: --xla --no-xla
gpu_growth: --gpu_growth --no-gpu-growth
dtype: --dtype -dt float16
loss_scale: --loss_scale 0.5
num_gpus: --num_gpus 1
intra_op_threads: --intra_op_threads --intra_op_parallelism_threads 3
inter_op_threads: --inter_op_threads --inter_op_parallelism_threads 3
verbose: --verbose --no-verbose
adadelta_rho: --adadelta_rho 0.5
adagrad_initial_accumulator_value: --adagrad_initial_accumulator_value 0.5
adam_beta1: --adam_beta1 0.5
adam_beta2: --adam_beta2 0.5
adam_epsilon: --adam_epsilon 0.5
opt_epsilon: --opt_epsilon 0.5
ftrl_learning_rate_power: --ftrl_learning_rate_power -0.25
ftrl_initial_accumulator_value: --ftrl_initial_accumulator_value 0.5
ftrl_l1: --ftrl_l1 0.5
ftrl_l2: --ftrl_l2 0.5
momentum: --momentum 0.5
rmsprop_momentum: --rmsprop_momentum 0.5
rmsprop_decay: --rmsprop_decay 0.5
weight_decay: --weight_decay 0.5
end_learning_rate: --end_learning_rate 0.5
learning_rate_decay_factor: --learning_rate_decay_factor 0.5
num_epochs_per_decay: --num_epochs_per_decay 0.5
xentropy_label_smoothing: --label_smoothing --xentropy_label_smoothing 0.5
l2_regularization: --l2_regularization 0.5
dropout_rate: --dropout_rate 0.25
fine_tuning: --fine_tuning --no-fine-tuning
sync_replicas: --sync_replicas --no-sync_replicas
gradient_accumulation_steps: --replicas_to_aggregate 3
checkpoint_path: --checkpoint_path pretrained.ckpt
trainable_scopes: --trainable_scopes a,b
checkpoint_exclude_scopes: --checkpoint_exclude_scopes a,b
train_steps: --train_steps 3
eval_throttle_secs: --eval_throttle_secs 3.0
image_size: --image_size 3
debug: --debug --no-debug
train_metadata: --train_metadata tfrecords/train-0,tfrecords/train-1
eval_metadata: --eval_metadata gs://bucket/eval*,a.csv
"""
CHOICES = """
optimizer: adadelta adagrad adam ftrl momentum sgd rmsprop
learning_rate_decay_type: fixed exponential polynomial
"""


@pytest.mark.parametrize("line", OPTIONS.strip().splitlines(), ids=lambda line: line.split(":")[0])
def test_every_option_of_the_forerunners_is_accepted(line):
    name, _, words = line.partition(": ")
    spellings = [each for each in words.split() if re.match("--?[a-z]", each)]
    value = words.split()[len(spellings) :]
    for spelling in spellings:
        for written in {spelling, spelling[:2] + spelling[2:].replace("_", "-")}:
            settings = read_settings([written, *value])
            found = settings.values[name]
            assert found.provenance == "command line"
            text = ",".join(found.value) if isinstance(found.value, tuple) else str(found.value)
            assert text == (value[0] if value else str("--no" not in spelling))


@pytest.mark.parametrize("line", CHOICES.strip().splitlines(), ids=lambda line: line.split(":")[0])
def test_every_choice_of_the_forerunners_is_accepted(line):
    name, _, choices = line.partition(": ")
    for choice in choices.split():
        assert read_settings([f"--{name}", choice]).values[name].value == choice
        assert name != "optimizer" or choice in OPTIMIZERS


def test_options_of_the_forerunners_converter():
    line = (
        "--dataset_dir a --tfrecord_filename b --tfrecord_dir c --num_shards 2 --random_seed 3 "
        "--max_edge 384"
    )
    options = read_options(convert_dataset.Settings, line.split(), convert_dataset.PROGRAM)
    assert options.settings.max_edge == 384


def test_command_of_the_estimator_framework():
    line = (
        "--batch_size 64 --train_steps 10000 --train_metadata tfrecords/train-0 tfrecords/train-1 "
        "--eval_metadata tfrecords/eval* --checkpoint_path pretrained.ckpt --model_dir ./models "
        "--eval_freq 10 --eval_throttle_secs 30 --learning_rate 0.00001"
    )
    settings = read_settings(line.split(), COMMANDS)
    assert settings.command == "train"
    assert settings.project.train_metadata == ("tfrecords/train-0", "tfrecords/train-1")
    assert settings.project.eval_metadata == ("tfrecords/eval*",)
    assert settings.project.train_steps == 10_000
