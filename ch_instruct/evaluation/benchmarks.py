"""Run the named benchmarks of the field on a model, through EleutherAI's lm-evaluation-harness.

    pip install -r requirements-eval.txt                                              # once
    python ch_instruct/evaluation/benchmarks.py --tasks classroom                     # our own test part, offline
    python ch_instruct/evaluation/benchmarks.py --model runs/ch_instruct/001 --tasks mmlu,squad --chat --limit 20
    python ch_instruct/evaluation/benchmarks.py --tasks mine --tasks-folder my_tasks  # your own task files

The public benchmarks are fetched from the Hugging Face hub at first use. Questions longer than the model can read lose
their beginning; the command prints how many.
"""

import json
import logging
import os
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from common.support import files, options
from common.support.console import say, table
from common.support.files import InputError, needs
from common.support.options import REQUIRED, DeviceOption, FormatOption, ModelOption, new_file, option, whole

# Our name -> tasks, tags or groups of the harness, or of OUR_TASKS.
BENCHMARKS = {
    "mmlu": ("mmlu",),
    "glue": ("glue",),  # without STS-B, which asks for a number
    "superglue": ("super-glue-lm-eval-v1",),
    "bigbench": ("bigbench_multiple_choice_a", "bigbench_multiple_choice_b"),
    "squad": ("squadv2",),
    "triviaqa": ("triviaqa",),
    "humaneval": ("humaneval",),
    "medqa": ("medqa_4options",),
    "medqa5": ("medqa_5options",),
    "pubmedqa": ("pubmedqa_parquet",),
    "medmcqa": ("medmcqa",),
}


@dataclass(frozen=True)
class BenchmarkOptions(FormatOption, DeviceOption, ModelOption):
    """The options of this command. The prompt style is that of the classroom's questions."""

    tasks: tuple[str, ...] = option(REQUIRED, f"one or several with commas between: classroom, {', '.join(BENCHMARKS)}; or "
                                    "names of the harness (`lm_eval ls tasks`) or of your own task files", metavar="NAMES",
                                    type=lambda text: tuple(dict.fromkeys(name.strip() for name in text.split(","))))
    tasks_folder: Path | None = option(None, "a folder with task files of your own, .yaml in the harness's form; what stands "
                                       "behind !function in them is Python and runs with your rights (default: none)", Path,
                                       metavar="FOLDER")
    limit: int | None = option(None, "the first N questions of each task (default: all)", whole, metavar="N")
    batch_size: int = option(16, "questions in one forward pass (default: %(default)s)", whole, metavar="N")
    chat: bool = option(False, "put the questions of public benchmarks in the prompt style in which the model was fine-tuned "
                        "(the chat template of its folder), not as they stand")
    out: Path | None = option(None, "write all results there, .json (default: print only)", new_file, metavar="FILE")
    confirm_run_unsafe_code: bool = option(False, "humaneval runs what the model writes; say that this may happen on this "
                                           "machine")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tasks_folder is not None and not self.tasks_folder.is_dir():
            raise InputError(f"--tasks-folder {self.tasks_folder}: there is no such folder.")
        if self.chat and "classroom" in self.tasks:
            raise InputError("--chat: the questions of classroom have a prompt style already, that of --format; leave --chat "
                             "out, or run them apart.")


if __name__ == "__main__":
    options.run_command(options.parse, BenchmarkOptions, __doc__)  # --help and wrong options end here: imports take seconds

from ch_instruct.prompts import END, chatml_turns, format_prompt
from ch_instruct.records import load_records
from ch_instruct.scoring import normalise
from ch_instruct.support.prompt_style import choose_style, default_system
from common.pretrained import adapted_folder, find_folder, load_pretrained, read_tokenizer, save_pretrained
from common.support.device import pick_device
from common.support.reports import cell

OUR_TASKS = Path(__file__).parent / "benchmark_tasks"
LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # what tasks call the longest answer
CHOICES = 4


def write_tasks(folder: Path, name: str, records: list[dict], style: str, system: str = "") -> None:
    """Write records as two tasks of the harness, NAME_choice and NAME_answer, which together go by the tag NAME.

    The first asks which of four answers is likeliest after the prompt: the expected one, or three expected ones of other
    records (of the same family, where records name families). The second lets the model answer greedily and takes the
    exact match, whatever the case, the space at both ends and a full stop at the end. (`scoring.normalise` also forgives
    space inside, kinds of apostrophes and of accents.)

    Args:
        folder: gets NAME.jsonl and one .yaml file per task; for --tasks-folder.
        style: of the prompts; they are written out, so the harness adds nothing to them.
        system: the system message that begins them, in the style chatml.
    """
    path = (folder / f"{name}.jsonl").resolve()
    rows = []
    for number, record in enumerate(records):
        chance = random.Random(f"{name} {number}")
        others = {normalise(r["output"]): r["output"] for r in records if r.get("family") == record.get("family")}
        others.pop(normalise(record["output"]))
        choices = [record["output"], *chance.sample(sorted(others.values()), min(CHOICES - 1, len(others)))]
        chance.shuffle(choices)
        prompt = "".join(chatml_turns(record, system)[0]) if style == "chatml" else format_prompt(record, style)
        rows.append({"prompt": prompt, "output": record["output"], "choices": choices,
                     "right": choices.index(record["output"])})
    files.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    # The prompt ends with a line break, so nothing stands between it and the answer. (JSON is YAML, too.)
    shared = {"tag": name, "dataset_path": "json", "test_split": "test", "doc_to_text": "prompt", "target_delimiter": "",
              "dataset_kwargs": {"data_files": {"test": str(path)}, "cache_dir": str(path.parent / "cache")}}
    files.write_json(folder / f"{name}_choice.yaml", shared | {
        "task": f"{name}_choice", "output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "right",
        "metric_list": [{"metric": "acc"}]})
    files.write_json(folder / f"{name}_answer.yaml", shared | {
        "task": f"{name}_answer", "output_type": "generate_until", "doc_to_target": "output",
        "generation_kwargs": {"until": [END] * (style == "chatml"), "do_sample": False, "max_gen_toks": 64},
        "metric_list": [{"metric": "exact_match", "ignore_case": True, "regexes_to_ignore": [r"^\s+", r"\s*\.?\s*$"]}]})


def find_tasks(names: Sequence[str], folders: list[Path]):
    """Look names up: ours, those of task files in `folders`, and the harness's own.

    Returns:
        The harness's TaskManager, and the names as it knows them.

    Raises:
        InputError: for a name that nothing goes by.
    """
    from lm_eval.tasks import TaskManager

    wanted = [task for name in names for task in BENCHMARKS.get(name, (name,))]
    manager = TaskManager(include_path=folders, include_defaults=False)
    if not set(wanted) <= set(manager.all_tasks):  # then among the harness's 15,000, which takes some seconds to read
        manager = TaskManager(include_path=folders)
    unknown = [name for name in wanted if name not in manager.all_tasks]
    if unknown:
        raise InputError(f"--tasks: nothing goes by the name {unknown[0]!r}; use classroom, {', '.join(BENCHMARKS)}, a name "
                         "from `lm_eval ls tasks`, or that of a task file in --tasks-folder.")
    return manager, wanted


def open_model(folder: Path, device: str, batch_size: int):
    """The harness's model for Hugging Face folders, made fit for short contexts.

    Tasks ask for answers of up to 1,024 tokens, which is all that GPT-2 can read; here an answer gets at most half of the
    context. Questions that are too long lose their beginning, as ever in the harness; `cut` counts them.
    """
    from lm_eval.models.huggingface import HFLM

    class ShortContextModel(HFLM):
        cut = 0

        @property
        def max_gen_toks(self) -> int:
            return min(super().max_gen_toks, self.max_length // 2)

        def generate_until(self, requests: list, disable_tqdm: bool = False) -> list[str]:
            for request in requests:
                wishes = request.args[1]
                given = [wishes.pop(name) for name in LIMITS if name in wishes]
                wishes["max_gen_toks"] = min(*given, *[self.max_gen_toks] * (not given), self.max_length // 2)
                room = self.max_length - wishes["max_gen_toks"]
                self.cut += len(self.tok_encode(request.args[0])) > room
            return super().generate_until(requests, disable_tqdm)

        def _loglikelihood_tokens(self, requests: list, *args: object, **options: object) -> list[tuple[float, bool]]:
            self.cut += len({tuple(question) for _, question, answer in requests  # each comes with all of its choices
                             if len(question) + len(answer) > self.max_length + 1})
            return super()._loglikelihood_tokens(requests, *args, **options)

    return ShortContextModel(pretrained=str(folder), device=device, batch_size=batch_size)


def load_tasks(args: BenchmarkOptions, folder: Path) -> dict:
    """The tasks that the command line names, with their questions, as the harness's `evaluate` takes them.

    Args:
        folder: for the files of the classroom's tasks.

    Raises:
        InputError: if a name is unknown, code would be run without leave, or the questions cannot be had.
    """
    given = f"--tasks {','.join(args.tasks)}"
    if "classroom" in args.tasks:
        records = [record for record in load_records("classroom").records if record["split"] == "test"]
        style = choose_style(args.model, args.format)
        system = default_system(read_tokenizer(find_folder(args.model)).chat_template) if style == "chatml" else ""
        write_tasks(folder, "classroom", records, style, system)
    manager, wanted = find_tasks(args.tasks, [OUR_TASKS, folder, *filter(None, [args.tasks_folder])])
    if any((manager.task_index[name].cfg or {}).get("unsafe_code") for name in wanted):
        if not args.confirm_run_unsafe_code:
            raise InputError(f"{given} runs code that the model writes, on this machine and with your rights; if "
                             "that may be (better in a container), add --confirm-run-unsafe-code.")
        os.environ["HF_ALLOW_CODE_EVAL"] = "1"  # the metric asks for leave of its own
    try:
        loaded = manager.load(wanted)
    except OSError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{given}: the questions cannot be fetched ({reason}); go online once, set HF_ENDPOINT "
                         "to a mirror, or use --tasks classroom or --tasks-folder with local files.") from error
    for task in loaded["tasks"].values():  # as the harness's own command does
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(0)
    return loaded


def measures(found: dict) -> list[dict]:
    """What the harness found, as flat rows: one per task (or group of tasks) and metric.

    Returns:
        Objects with task, metric, value, stderr (the standard error of the value; None where the harness has none),
        questions, and part_of (the group whose value covers this one, or None).
    """
    group_of = {task: group for group, tasks in found["group_subtasks"].items() for task in tasks}
    rows = []
    for task, values in found["results"].items():
        for key, value in values.items():
            metric, _, form = key.partition(",")  # "acc,none": the metric, and what was done to the answer before
            if form and not metric.endswith("_stderr"):
                stderr = values.get(f"{metric}_stderr,{form}")
                rows.append({"task": task, "metric": metric if form == "none" else key, "value": float(value),
                             "stderr": None if stderr in (None, "N/A") else float(stderr),
                             "questions": values["sample_len"], "part_of": group_of.get(task)})
    return rows


def main() -> None:
    args = options.parse(BenchmarkOptions, __doc__)
    with needs("lm-evaluation-harness", "-r requirements-eval.txt"):
        import datasets
        import lm_eval
        from transformers.utils.logging import disable_progress_bar
    device = str(pick_device(args.device))
    ours = load_pretrained(args.model)  # says clearly what is wrong with a folder, where there is something
    datasets.disable_progress_bars()  # theirs of loading; those of the questions stay
    disable_progress_bar()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)

    with tempfile.TemporaryDirectory() as folder:
        place = find_folder(args.model)
        if adapted_folder(place):  # the harness reads whole models only
            place = Path(folder) / "model"
            save_pretrained(*ours, place)
        model = open_model(place, device, args.batch_size)
        if args.chat and model.tokenizer.chat_template is None:
            raise InputError(f"--chat: {args.model} has no chat template; folders that ch_instruct/train.py writes have one.")
        loaded = load_tasks(args, Path(folder))
        found = lm_eval.evaluate(model, loaded, limit=args.limit, log_samples=False, apply_chat_template=args.chat,
                                 confirm_run_unsafe_code=args.confirm_run_unsafe_code)

    rows = measures(found)
    say(table(["", "questions", "metric", "value", "standard error"], [
        [row["task"], str(row["questions"]), row["metric"], f"{row['value']:.4f}",
         cell(row["stderr"], ".4f")] for row in rows if row["part_of"] is None]))
    if model.cut:
        say(f"\n{args.model} reads {model.max_length} tokens at most, so prompts lost their beginning: {model.cut}")
    if args.out is not None:
        files.write_json(args.out, {
            "model": args.model, "tasks": args.tasks, "chat": args.chat, "limit": args.limit, "cut": model.cut,
            "measures": rows,
            "versions": {name: version(name) for name in ("lm_eval", "transformers", "datasets", "torch")}})
        say(f"\n{len(rows)} measures in {args.out}")


if __name__ == "__main__":
    options.run_command(main)
