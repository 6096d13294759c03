"""Training scripts that are not changed, each with the line and a part of the reason."""

from tests.unit.adoption.scripts_that_adopt import PARTS

_MADE = """
torch.manual_seed(0)
loader = DataLoader(make_data(), batch_size=4)
model = nn.Linear(4, 2)
optimizer = optim.SGD(model.parameters(), lr=0.1)
"""
_STEP = """
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
"""
_LOOP = f"for epoch in range(2):\n    for x, y in loader:{_STEP}"

_WAITS = "gradients wait over several batches"


def _accumulated(condition: str, *, before: str = "", after: str = "") -> str:
    return f"""{_MADE}
for epoch in range(2):
    for i, (x, y) in enumerate(loader):
{before}        (F.cross_entropy(model(x), y) / 4).backward()
        if {condition}:
>>>            optimizer.step()
            optimizer.zero_grad()
{after}"""


# Each: what it is called, the script with `>>>` at the line that is named, and a part of the reason.
_CASES = {
    "accumulation_that_leaves_a_rest": (
        _MADE
        + """
for epoch in range(2):
    for i, (x, y) in enumerate(loader):
        (F.cross_entropy(model(x), y) / 4).backward()
>>>        if (i + 1) % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()
""",
        "may be left at the end of the loop without a step",
    ),
    "accumulation_that_leaves_a_rest_of_one_pass": (
        _MADE
        + """
for i, (x, y) in enumerate(loader, 1):
    (F.cross_entropy(model(x), y) / 4).backward()
>>>    if not i % 4:
        optimizer.step()
        optimizer.zero_grad()
""",
        "may be left at the end of the loop without a step",
    ),
    "accumulation_by_another_count": (_accumulated("i % 4 == 0"), _WAITS),
    "accumulation_by_a_count_over_epochs": (
        "\nseen = 0\n" + _accumulated("seen % 4 == 0", before="        seen += 1\n"),
        _WAITS,
    ),
    "accumulation_to_the_end_of_another_loader": (
        _accumulated("(i + 1) % 4 == 0 or i + 1 == len(other_loader)"),
        _WAITS,
    ),
    "accumulation_and_something_else": (_accumulated("(i + 1) % 4 == 0 and epoch > 0"), _WAITS),
    "accumulation_over_a_number_that_changes": (
        "\nk = 2\n" + _accumulated("(i + 1) % k == 0", after="        k = 4\n"),
        _WAITS,
    ),
    "accumulation_that_is_left_early": (
        _accumulated("(i + 1) % 4 == 0", after="        if i > 2:\n            break\n"),
        _WAITS,
    ),
    "accumulation_with_batches_left_out": (
        _accumulated("(i + 1) % 4 == 0", before="        if x.sum() > 9:\n            continue\n"),
        _WAITS,
    ),
    "accumulation_with_gradients_after_the_step": (
        _accumulated("(i + 1) % 4 == 0", after="        model(x).sum().backward()\n"),
        _WAITS,
    ),
    "the_end_of_the_process_in_the_loop": (
        "import sys\n" + _MADE + _LOOP + "        if loss < 1e-9:\n>>>            sys.exit(0)\n",
        "the run is never finished",
    ),
    "the_end_of_the_process_after_the_loop": (
        "import sys\n" + _MADE + _LOOP + "print('done')\n>>>exit()\n",
        "the run is never finished",
    ),
    "the_end_of_the_process_around_main": (
        "import sys\n\ndef main():\n    "
        + (_MADE + _LOOP).replace("\n", "\n    ")
        + "\n>>>sys.exit(main())\n",
        "the run is never finished",
    ),
    "a_range_from_2": (
        _MADE + f"\n>>>for epoch in range(2, 5):\n    for x, y in loader:{_STEP}",
        "the range begins at 2",
    ),
    "never_zeroed": (
        _MADE + "\nfor epoch in range(2):\n>>>    for x, y in loader:\n"
        "        F.cross_entropy(model(x), y).backward()\n"
        "        optimizer.step()\n",
        "no zero_grad() in the loop",
    ),
    "resumes_by_itself": (
        _MADE
        + '\ncheckpoint = torch.load("c.pt")\n>>>optimizer.load_state_dict(checkpoint["optimizer"])\n'
        + _LOOP,
        "the script resumes by itself",
    ),
    "own_start": (
        _MADE + f"\nstart_epoch = 1\n>>>for epoch in range(start_epoch, 3):\n    for x, y in loader:{_STEP}",
        "begins at start_epoch",
    ),
    "two_runs": (_MADE + _LOOP + "\n>>>" + _LOOP, "a second training loop"),
    "folds": (
        _MADE
        + "\nfor fold in range(3):\n>>>    for epoch in range(2):\n        for x, y in loader:"
        + _STEP.replace("\n        ", "\n            "),
        "a third loop",
    ),
    "lightning": (">>>import lightning as L\n" + _MADE + _LOOP, "lightning drives the training"),
    "trl": (">>>from trl import SFTTrainer\n" + _MADE + _LOOP, "SFTTrainer of trl drives the training"),
    "ranks": (
        '\n>>>torch.distributed.init_process_group("gloo")\n' + _MADE + _LOOP,
        "several ranks",
    ),
    "trainer_class": (
        """
class Trainer:
    def __init__(self):
        self.model = nn.Linear(4, 2)
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1)
        self.train_loader = DataLoader(make_data(), batch_size=4)

>>>    def fit(self):
        for epoch in range(2):
            for x, y in train_loader:
                self.optimizer.zero_grad()
                F.cross_entropy(self.model(x), y).backward()
                self.optimizer.step()

train_loader = DataLoader(make_data(), batch_size=4)
Trainer().fit()
""",
        "a method of the class Trainer",
    ),
    "unknown_batches": (
        _MADE + f"\nfor epoch in range(2):\n>>>    for x, y in make_batches():{_STEP}",
        "not known to be a DataLoader",
    ),
    "permutation": (
        _MADE
        + """
X, Y = torch.randn(24, 4), torch.zeros(24).long()
for epoch in range(2):
    order = torch.randperm(24)
>>>    for i in range(0, 24, 4):
        x, y = X[order[i:i + 4]], Y[order[i:i + 4]]"""
        + _STEP,
        "which is not known to be a DataLoader",
    ),
    "drawn_each_epoch_from_one_generator": (
        _MADE + "\nrng = numpy.random.default_rng(7)\nfor epoch in range(2):\n"
        f">>>    scale = float(rng.random())\n    for x, y in loader:\n        x = x * scale{_STEP}",
        "drawn in each epoch",
    ),
    "drawn_each_epoch": (
        _MADE + "\nfor epoch in range(2):\n>>>    noise = torch.randn(4)\n"
        f"    for x, y in loader:\n        x = x + noise{_STEP}",
        "drawn in each epoch",
    ),
    "bare_except": (
        _MADE + "\ntry:\n    " + _LOOP.replace("\n", "\n    ") + "\n>>>except:\n    print('stopped')\n",
        "catches the end of a drain",
    ),
    "no_loop": ("import torch\n\nprint(torch.__version__)\n", "no training loop found"),
    "adopted_already": (">>>import trainerd\n" + _MADE + _LOOP, "uses trainerd already"),
    "epoch_after": (
        _MADE + f">>>for epoch in range(2):\n    for x, y in loader:{_STEP}print(epoch)\n",
        "epoch is bound by for",
    ),
    "clock": (
        _MADE
        + "\nstarted = time.time()\nfor epoch in range(2):\n    for x, y in loader:"
        + _STEP
        + ">>>        if time.time() - started > 60:\n            break\n",
        "the clock decides",
    ),
    "unknown_optimizer": (
        _MADE
        + "from helpers import make_optimizer\nother = make_optimizer(model)\n"
        + _LOOP
        + ">>>        other.step()\n",
        "what steps here is not an object of this file",
    ),
    "maybe_none": (
        _MADE
        + "sched = optim.lr_scheduler.StepLR(optimizer, 1) if False else None\n"
        + _LOOP
        + "        if sched is not None:\n>>>            sched.step()\n",
        "sched.step()",
    ),
    "early_stopper": (
        _MADE
        + """
class EarlyStopping:
    def __init__(self):
        self.bad = 0

    def seen(self, loss):
        self.bad += loss > 1
        return self.bad > 3

>>>stopper = EarlyStopping()
"""
        + _LOOP
        + "    if stopper.seen(loss.item()):\n        break\n",
        "no state_dict and load_state_dict",
    ),
    "while_true": (_MADE + f"\n>>>while True:\n    for x, y in loader:{_STEP}", "a while loop"),
    "overshooting_while": (
        _MADE + f"\nstep = 0\nwhile step < 9:\n>>>    for x, y in loader:{_STEP}        step += 1\n",
        "goes on until the end of the loader",
    ),
    "unseeded_module": (
        "\n>>>loader = DataLoader(make_data(), batch_size=4)\nmodel = nn.Linear(4, 2)\n"
        "optimizer = optim.SGD(model.parameters(), lr=0.1)\n\ndef main():\n    "
        + _LOOP.replace("\n", "\n    ")
        + "\n\nif __name__ == '__main__':\n    main()\n",
        "made before the session is opened",
    ),
    "closure": (
        _MADE
        + """
for epoch in range(2):
    for x, y in loader:
        def closure():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
>>>            loss.backward()
            return loss
        optimizer.step(closure)
""",
        "backward() is not called by a loop",
    ),
    "for_else": (_MADE + _LOOP + "    else:\n>>>        print('all')\n", "a training loop with else"),
    "two_calls": (
        _MADE
        + ">>>def train(loader):\n    for x, y in loader:"
        + _STEP
        + "\nfor epoch in range(2):\n    train(loader)\n    train(loader)\n",
        "is used in",
    ),
    "threads": (
        "import threading\n" + _MADE + "\n>>>threading.Thread(target=print).start()\n" + _LOOP,
        "beside the training loop",
    ),
    "globals": (_MADE + "\n>>>exec('seed = 1')\n" + _LOOP, "hides"),
    "accumulation_by_continue": (
        _MADE
        + """
for epoch in range(2):
    for i, (x, y) in enumerate(loader):
        (F.cross_entropy(model(x), y) / 4).backward()
        if (i + 1) % 4:
>>>            continue
        optimizer.step()
        optimizer.zero_grad()
""",
        "gradients wait over several batches",
    ),
    "accumulation_by_return": (
        _MADE
        + """
def one(i, x, y):
    (F.cross_entropy(model(x), y) / 4).backward()
    if (i + 1) % 4:
>>>        return
    optimizer.step()
    optimizer.zero_grad()

for epoch in range(2):
    for i, (x, y) in enumerate(loader):
        one(i, x, y)
""",
        "gradients wait over several batches",
    ),
    "new_optimizer_in_the_loop": (
        _MADE
        + "\nfor epoch in range(9):\n    if epoch == 5:\n"
        + ">>>        optimizer = optim.SGD(model.parameters(), lr=0.01)\n"
        + f"    for x, y in loader:{_STEP}",
        "optimizer is bound again in the training loop",
    ),
    "new_model_in_a_function_of_the_loop": (
        _MADE
        + "\ndef widen():\n    global model\n>>>    model = nn.Linear(4, 2)\n\n"
        + f"for epoch in range(9):\n    widen()\n    for x, y in loader:{_STEP}",
        "model is bound again in the training loop",
    ),
    "new_optimizer_after_the_loop": (
        _MADE + _LOOP + ">>>optimizer = optim.SGD(model.parameters(), lr=0.01)\n",
        "optimizer stands for another object after the training loop",
    ),
    "loop_on_one_line": (
        _MADE + f"\ndef train():\n    for x, y in loader:{_STEP}\n>>>for epoch in range(2): train()\n",
        "with its body in the same line",
    ),
    "guard_on_one_line": (
        "\ndef main():\n    "
        + (_MADE + _LOOP).replace("\n", "\n    ")
        + "\n>>>if __name__ == '__main__': main()\n",
        "the guard shares its line",
    ),
    "import_beside_what_trains": (
        ">>>import torch; model = nn.Linear(4, 2)\n" + _MADE + _LOOP,
        "shares its line",
    ),
    "decorated": (
        "import click\n"
        + _MADE
        + "\n@click.command()\n>>>def main():\n    "
        + _LOOP.replace("\n", "\n    ")
        + "\n\nmain()\n",
        "has a decorator",
    ),
}


def _placed(source: str) -> tuple[str, int]:
    lines = (PARTS + source).splitlines()
    marked = [number for number, line in enumerate(lines, 1) if line.startswith(">>>")]
    text = "\n".join(line.removeprefix(">>>") for line in lines) + "\n"
    return text, marked[0] if marked else 1


REFUSED = {name: (*_placed(source), reason) for name, (source, reason) in _CASES.items()}
