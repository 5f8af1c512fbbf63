from dataclasses import dataclass
from pathlib import Path

from rlred.flags import option, required


@dataclass(frozen=True)
class PlanRun:
    """Memory per device and tokens per step of a recipe, before it is started.

    rlred plan --config recipes/l1_maxlen_r1_1.5b.yaml
    rlred plan --config recipes/l1_maxlen_r1_1.5b_8gpu.yaml --model 7B --devices 8 --strategy zero2
    """

    config: Path = required("The recipe's YAML.", metavar="FILE")
    model: str | None = option(None, "1.5B, 7B, 32B, a folder or a Hub id (default: the recipe's).")
    devices: int = option(1, "Number of devices.", metavar="N")
    strategy: str = option("ddp", "One of ddp, zero2 and zero3 (FSDP2 that reshards counts as zero3).")
    prompt_length: int = option(256, "Tokens of a prompt.", metavar="TOKENS")
    tflops: float = option(100.0, "Teraflops that a device achieves; an assumption.", metavar="X")

    def run(self) -> None:
        """Prints what a recipe's run will take."""
        from rlred.checks.plan import Plan, report, shape_of
        from rlred.runs.recipe_files import read_recipe

        if not self.config.is_file():
            raise ValueError(f"--config: no such file: {self.config}")
        if not self.tflops > 0:
            raise ValueError(f"--tflops must be above 0, got {self.tflops}")
        arguments, training, model_config = read_recipe(self.config)
        shape = shape_of(self.model or model_config.model_name_or_path)
        plan = Plan(shape, arguments, training, model_config, self.devices, self.strategy, self.prompt_length)
        print(report(plan, self.config, self.tflops))
