"""Loops that do not resume exactly. ``#! RULE NAME`` marks each line with a finding."""

# ruff: noqa: E501 - the scripts are as people write them

WRONG = {}

HEAD = """
import itertools, os, random, time, uuid
import numpy as np, torch, trainerd
from tqdm import tqdm
"""


def wrong(name, body):
    """Add a loop: the head is put before it."""
    WRONG[name] = HEAD + body


def tracked(name, body):
    """Add the inside of a session that tracks a model and its optimizer."""
    lines = [
        "with trainerd.session() as session:",
        "    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)",
        "    session.track(model=model, optimizer=optimizer)",
        *(f"    {line}" for line in body.strip("\n").splitlines()),
    ]
    wrong(name, "\n".join(lines) + "\n")


tracked(
    "a sum over an epoch",
    """
for epoch in session.epochs(3):
    total = 0.0
    for x in session.batches(loader):
        loss = train_step(x)
        total += loss.item()  #! carried-variable total
    session.report(mean=total / len(loader))
""",
)

tracked(
    "the tutorial's running loss",
    """
for epoch in session.epochs(3):
    running_loss = 0.0
    for i, x in enumerate(session.batches(loader), 0):
        loss = train_step(x)
        running_loss += loss.item()  #! carried-variable running_loss
        if i % 2000 == 1999:
            print(f"{running_loss / 2000:.3f}")
            running_loss = 0.0
""",
)

tracked(
    "a hidden state",
    """
hidden = None
for epoch in session.epochs(3):
    for x in session.batches(loader):
        out, hidden = model(x, hidden)  #! carried-variable hidden
        hidden = hidden.detach()
""",
)

tracked(
    "a batch fetched ahead",
    """
X, Y = get_batch("train")
for step in session.steps(100):
    loss = model(X, Y)  #! carried-variable X Y
    X, Y = get_batch("train")
    loss.backward(); optimizer.step()
""",
)

tracked(
    "the best score",
    """
best = 0.0
for epoch in session.epochs(3):
    for x in session.batches(loader):
        train_step(x)
    accuracy = evaluate(model)
    if accuracy > best:  #! carried-variable best
        best = accuracy
""",
)

tracked(
    "patience",
    """
bad_epochs = 0
for epoch in session.epochs(30):
    for x in session.batches(loader):
        train_step(x)
    if evaluate(model) < 0.5:
        bad_epochs += 1  #! carried-variable bad_epochs
    if bad_epochs > 3:
        break
""",
)

tracked(
    "a count of steps",
    """
global_step = 0
for epoch in session.epochs(3):
    for x in session.batches(loader):
        lr = 0.1 * min(1.0, global_step / 100)  #! carried-variable global_step
        for group in optimizer.param_groups:
            group["lr"] = lr
        train_step(x)
        global_step += 1
""",
)

tracked(
    "a list of losses",
    """
losses = []
for epoch in session.epochs(3):
    for x in session.batches(loader):
        losses.append(train_step(x).item())  #! carried-variable losses
    session.report(mean=sum(losses) / len(losses))
""",
)

tracked(
    "a dictionary of scores",
    """
history = {"accuracy": []}
scores = {}
for epoch in session.epochs(3):
    for x in session.batches(loader):
        train_step(x)
    scores[epoch] = evaluate(model)  #! carried-variable scores
print(max(scores.values()))
""",
)

tracked(
    "a meter",
    """
meter = AverageMeter("loss")
for epoch in session.epochs(3):
    for x in session.batches(loader):
        meter.update(train_step(x).item())  #! carried-variable meter
    session.report(loss=meter.avg)
""",
)

tracked(
    "a smoothed loss",
    """
ema = None
for epoch in session.epochs(3):
    for x in session.batches(loader):
        loss = train_step(x).item()
        ema = loss if ema is None else 0.9 * ema + 0.1 * loss  #! carried-variable ema
        session.log(ema=ema)
""",
)

tracked(
    "a flag of the first batch",
    """
first = True
for epoch in session.epochs(3):
    for x in session.batches(loader):
        if first:  #! carried-variable first
            initialize(model, x)
            first = False
        train_step(x)
""",
)

tracked(
    "the last loss, reported after the loop",
    """
for epoch in session.epochs(3):
    for x in session.batches(loader):
        loss = train_step(x)
    session.report(last=loss.item())  #! read-after-loop loss
""",
)

tracked(
    "the number of batches, used after the loop",
    """
for epoch in session.epochs(3):
    for i, x in enumerate(session.batches(loader)):
        train_step(x)
    session.report(batches=i + 1)  #! read-after-loop i
""",
)

tracked(
    "the last accuracy, printed after all epochs",
    """
for epoch in session.epochs(3):
    for x in session.batches(loader):
        train_step(x)
    accuracy = evaluate(model)
    session.report(accuracy=accuracy)
print("final", accuracy)  #! read-after-loop accuracy
""",
)

tracked(
    "accumulation by a count of enumerate",
    """
for epoch in session.epochs(3):
    for i, x in enumerate(session.batches(loader)):
        (model(x).mean() / 4).backward()
        if (i + 1) % 4 == 0:  #! enumerate-count i
            optimizer.step()
            optimizer.zero_grad()
""",
)

tracked(
    "a learning rate by a count of enumerate",
    """
for epoch in session.epochs(3):
    for i, x in enumerate(tqdm(session.batches(loader))):
        set_lr(optimizer, epoch + i / len(loader))  #! enumerate-count i
        train_step(x)
""",
)

tracked(
    "a row logged by a count of enumerate",
    """
for epoch in session.epochs(3):
    for i, x in enumerate(session.batches(loader)):
        loss = train_step(x)
        if i % 10 == 0:  #! enumerate-count i
            session.log(loss=loss.item())
""",
)

tracked(
    "a break by a count of enumerate",
    """
for epoch in session.epochs(3):
    for i, x in enumerate(session.batches(loader)):
        if i == 100:  #! enumerate-count i
            break
        train_step(x)
""",
)

tracked(
    "a scheduler that is not tracked",
    """
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)  #! untracked-object scheduler
for epoch in session.epochs(3):
    for x in session.batches(loader):
        train_step(x)
    scheduler.step()
""",
)

tracked(
    "a scaler that is not tracked",
    """
scaler = torch.cuda.amp.GradScaler()  #! untracked-object scaler
for epoch in session.epochs(3):
    for x in session.batches(loader):
        scaler.scale(model(x).mean()).backward(); scaler.step(optimizer); scaler.update()
""",
)

wrong(
    "an optimizer that is not tracked",
    """
with trainerd.session() as s:
    net = build()
    adam = torch.optim.Adam(net.parameters())  #! untracked-object adam
    s.track(net=net)
    for epoch in s.epochs(3):
        for x in s.batches(loader):
            adam.zero_grad(); net(x).mean().backward(); adam.step()
""",
)

wrong(
    "the second model of two",
    """
with trainerd.session() as s:
    g = Generator(); d = Discriminator()
    opt_g = torch.optim.Adam(g.parameters()); opt_d = torch.optim.Adam(d.parameters())  #! untracked-object opt_d d
    s.track(g=g, opt_g=opt_g)
    for epoch in s.epochs(3):
        for x in s.batches(loader):
            train(g, d, opt_g, opt_d, x)
""",
)

wrong(
    "a session that tracks nothing",
    """
model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
with trainerd.session() as session:  #! untracked-object track
    for epoch in session.epochs(3):
        for x in session.batches(loader):
            train_step(x)
""",
)

wrong(
    "a session that is printed and passed to a function of the script, and tracks nothing",
    """
model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)

def train(session):
    for epoch in session.epochs(3):
        for x in session.batches(loader):
            train_step(x)

with trainerd.session() as session:  #! untracked-object track
    print(session)
    train(session)
""",
)

tracked(
    "a generator that is not tracked",
    """
rng = np.random.default_rng(0)  #! untracked-generator rng
for epoch in session.epochs(3):
    for x in session.batches(loader):
        train_step(x + rng.normal())
""",
)

tracked(
    "a generator of torch that is not tracked",
    """
noise = torch.Generator().manual_seed(1)  #! untracked-generator noise
for epoch in session.epochs(3):
    for x in session.batches(loader):
        train_step(x + torch.randn(x.shape, generator=noise))
""",
)

tracked(
    "two loops by zip",
    """
for epoch in session.epochs(3):
    for a, b in zip(session.batches(labelled), session.batches(unlabelled)):  #! two-training-loops session.batches
        train_step(a, b)
""",
)

tracked(
    "one loop within another",
    """
for epoch in session.epochs(3):
    for a in session.batches(labelled):
        for b in session.batches(unlabelled):  #! two-training-loops session.batches
            train_step(a, b)
""",
)

tracked(
    "an iterator beside a loop",
    """
for epoch in session.epochs(3):
    other = iter(session.batches(unlabelled))  #! two-training-loops session.batches
    for a in session.batches(labelled):
        train_step(a, next(other))
""",
)

tracked(
    "the clock ends the loop",
    """
began = time.time()
for epoch in session.epochs(3):
    for x in session.batches(loader):
        train_step(x)
        if time.time() - began > 3600:  #! clock-decides time.time
            break
""",
)

tracked(
    "seeds from the clock and from the system",
    """
for epoch in session.epochs(3):
    torch.manual_seed(int(time.time()))  #! unseeded-randomness torch.manual_seed
    for x in session.batches(loader):
        rng = np.random.default_rng()  #! unseeded-randomness numpy.random.default_rng
        key = os.urandom(8)  #! unseeded-randomness os.urandom
        train_step(x, rng, key)
""",
)

wrong(
    "another folder before the session",
    """
os.chdir("/data")  #! chdir-before-session os.chdir
with trainerd.session("run") as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    for epoch in session.epochs(3):
        for x in session.batches(loader):
            train_step(x)
""",
)

wrong(
    "a trainer class that counts",
    """
class Trainer:
    def fit(self, session, loader):
        session.track(model=self.model, optimizer=self.optimizer)
        for epoch in session.epochs(3):
            for x in session.batches(loader):
                self.seen += len(x)  #! carried-variable self.seen
                self.smooth = 0.9 * self.smooth + 0.1 * self.train_step(x)  #! carried-variable self.smooth
""",
)

wrong(
    "a loop in a function of its own",
    """
def train_one_epoch(session, model, optimizer, loader):
    model.train()
    correct = 0
    for x, y in session.batches(loader):
        out = model(x)
        loss = criterion(out, y)
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        correct += (out.argmax(1) == y).sum().item()  #! carried-variable correct
    return correct, loss  #! read-after-loop loss
""",
)

tracked(
    "an average assigned on one path only",
    """
for epoch in session.epochs(3):
    for x in session.batches(loader):
        loss = train_step(x)
        if session.step % 10 == 0:
            average = loss.item()
        session.log(average=average)  #! carried-variable average
""",
)

tracked(
    "an iterator by hand, and a sum",
    """
it = iter(session.batches(loader))
total = 0
while session.step < 100:
    try:
        x = next(it)
    except StopIteration:
        it = iter(session.batches(loader))
        x = next(it)
    total += train_step(x).item()  #! carried-variable total
    session.log(total=total)
""",
)

tracked(
    "the loader's iterator in a variable of its own",
    """
for epoch in session.epochs(3):
    bar = tqdm(session.batches(loader))
    seen = 0
    for x in bar:
        train_step(x)
        seen += len(x)  #! carried-variable seen
        bar.set_postfix(seen=seen)
""",
)

tracked(
    "a walrus, a del, a nested function with nonlocal",
    """
prev = None
for epoch in session.epochs(3):
    for x in session.batches(loader):
        if prev is not None and (gap := (x - prev).norm()) > 1:  #! carried-variable prev
            train_step(x, gap)
        prev = x
""",
)

tracked(
    "metrics that are updated by calling them",
    """
accuracy = torchmetrics.Accuracy()
recall = torchmetrics.Recall()
for epoch in session.epochs(3):
    for x, y in session.batches(loader):
        pred = train_step(x, y)
        print(accuracy(pred, y))  #! carried-variable accuracy
        recall(pred, y)  #! carried-variable recall
    session.report(accuracy=accuracy.compute(), recall=recall.compute())
    accuracy.reset()
""",
)

tracked(
    "a metric over the batches, an iterator over another loader, a tensor in place",
    """
accuracy = torchmetrics.Accuracy()
other = iter(unlabelled)
noise = torch.zeros(3)
for epoch in session.epochs(3):
    for x in session.batches(loader):
        u = next(other)  #! carried-variable other
        noise.mul_(0.9).add_(torch.randn(3))  #! carried-variable noise
        accuracy.update(train_step(x, u, noise))  #! carried-variable accuracy
    session.report(accuracy=accuracy.compute())
    accuracy.reset()
""",
)

tracked(
    "a momentum kept by hand in a list",
    """
velocities = [torch.zeros_like(p) for p in model.parameters()]
for x in session.batches(loader):
    model(x).mean().backward()
    for p, v in zip(model.parameters(), velocities):
        v.mul_(0.9).add_(p.grad)  #! carried-variable velocities
        p.data.add_(v, alpha=-0.1)
""",
)

tracked(
    "a momentum kept by hand, under other names and with operators",
    """
velocities = []
for p in model.parameters():
    velocities.append(torch.zeros_like(p))
for x in session.batches(loader):
    model(x).mean().backward()
    for number, (p, v) in enumerate(zip(model.parameters(), velocities)):
        v *= 0.9  #! carried-variable velocities
        v += p.grad
        p.data -= 0.1 * v
""",
)

tracked(
    "moments kept by hand in dictionaries within a dictionary",
    """
state = {name: {"m": torch.zeros_like(p), "v": torch.zeros_like(p)} for name, p in model.named_parameters()}
parameters = dict(model.named_parameters())
for x in session.batches(loader):
    model(x).mean().backward()
    for name, own in state.items():
        g = parameters[name].grad
        own["m"].mul_(0.9).add_(g, alpha=0.1)  #! carried-variable state
        own["v"].mul_(0.999).addcmul_(g, g, value=0.001)
        parameters[name].data.addcdiv_(own["m"], own["v"].sqrt(), value=-0.1)
""",
)

tracked(
    "an entry of a dictionary that is changed under a name of its own",
    """
velocity = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
for x in session.batches(loader):
    for name, p in model.named_parameters():
        v = velocity[name]
        v.mul_(0.9).add_(p.grad)  #! carried-variable velocity
        p.data.add_(v, alpha=-0.1)
""",
)

tracked(
    "a momentum kept by hand for all parameters at once",
    """
parameters = list(model.parameters())
velocities = [torch.zeros_like(p) for p in parameters]
for x in session.batches(loader):
    gradients = torch.autograd.grad(model(x).mean(), parameters)
    torch._foreach_mul_(velocities, 0.9)  #! carried-variable velocities
    torch._foreach_add_(velocities, gradients)
    torch._foreach_add_(parameters, velocities, alpha=-0.1)
""",
)

tracked(
    "gradients added up by hand",
    """
sums = [torch.zeros_like(p) for p in model.parameters()]
for i, x in session.enumerate(loader):
    for total, g in zip(sums, torch.autograd.grad(model(x).mean(), model.parameters())):
        total += g  #! carried-variable sums
    if i % 4 == 3:
        for p, total in zip(model.parameters(), sums):
            p.data.sub_(total)
            total.zero_()
""",
)

tracked(
    "the gradients of the step before",
    """
former = [torch.zeros_like(p) for p in model.parameters()]
for x in session.batches(loader):
    model(x).mean().backward()
    for p, before in zip(model.parameters(), former):
        p.data.sub_(p.grad + p.grad - before)
        before.copy_(p.grad)  #! carried-variable former
""",
)

tracked(
    "the gradients of the step before, by name",
    """
former = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
for x in session.batches(loader):
    model(x).mean().backward()
    for name, p in model.named_parameters():
        p.data.sub_(p.grad - former[name])
        former[name].copy_(p.grad)  #! carried-variable former
""",
)

tracked(
    "a moving average of gradients, by name",
    """
mean = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
for x in session.batches(loader):
    model(x).mean().backward()
    for name, p in model.named_parameters():
        mean[name].copy_(0.9 * mean[name] + p.grad)  #! carried-variable mean
    print(mean)
""",
)

tracked(
    "a bank of the features of each sample",
    """
bank = {i: torch.zeros(4) for i in range(100)}
for indices, x in session.batches(loader):
    features = model(x)
    for i, feature in zip(indices, features):
        bank[i].copy_(feature.detach())  #! carried-variable bank
    loss_of(features, bank).backward()
""",
)

tracked(
    "a count that decides something after the loop",
    """
steps = 0
for epoch in session.epochs(3):
    for x in session.batches(loader):
        train_step(x)
        steps += 1  #! carried-variable steps
    if steps > 5:
        optimizer.param_groups[0]["lr"] *= 0.1
""",
)

tracked(
    "a buffer that is emptied now and then",
    """
sums = [torch.zeros_like(p) for p in model.parameters()]
for i, x in session.enumerate(loader):
    if i % 4 == 0:
        for total in sums:
            total.zero_()
    for p, total in zip(model.parameters(), sums):
        total.add_(p.grad)  #! carried-variable sums
""",
)

tracked(
    "a momentum kept by hand in a function that gets it",
    """
def descend(parameters, velocities, lr):
    for p, v in zip(parameters, velocities):
        v.mul_(0.9).add_(p.grad)  #! carried-variable velocities
        p.data.add_(v, alpha=-lr)
velocities = [torch.zeros_like(p) for p in model.parameters()]
for x in session.batches(loader):
    model(x).mean().backward()
    descend(list(model.parameters()), velocities, 0.1)
""",
)

tracked(
    "an optimizer of the script's own",
    """
class Momentum:
    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.velocities = [torch.zeros_like(p) for p in self.parameters]
    def step(self):
        for p, v in zip(self.parameters, self.velocities):
            v.mul_(0.9).add_(p.grad)
            p.data.add_(v, alpha=-0.1)
momentum = Momentum(model.parameters())  #! untracked-object momentum
for x in session.batches(loader):
    model(x).mean().backward()
    momentum.step()
""",
)

WRONG["an optimizer of a part of a model that is not tracked"] = """
import torch, trainerd
with trainerd.session() as session:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))
    head = model[1]
    optimizer = torch.optim.SGD(head.parameters(), 0.1)  #! untracked-object head
    session.track(optimizer=optimizer)
    for x in session.batches(loader):
        train(model, optimizer, x)
"""

wrong(
    "a generator that is drawn from in a function",
    """
rng = np.random.default_rng(0)  #! untracked-generator rng
def jitter(x):
    return noisy(x)
def noisy(x):
    return x + rng.normal()
with trainerd.session() as session:
    session.track(model=model, optimizer=optimizer)
    for x in session.batches(loader):
        train_step(jitter(x))
""",
)
wrong(
    "a generator that is drawn from in a method",
    """
class Noise:
    def __init__(self):
        self.rng = torch.Generator()  #! untracked-generator self.rng
    def add(self, x):
        return x + torch.randn(x.shape, generator=self.rng)
noise = Noise()
with trainerd.session() as session:
    session.track(model=model, optimizer=optimizer)
    for x in session.batches(loader):
        train_step(noise.add(x))
""",
)

wrong(
    "a loss that is a module, with a centre, and one with a table of targets",
    """
class DINOLoss(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("center", torch.zeros(8))

    def forward(self, out):
        self.update_center(out)
        return (out - self.center).mean()

    def update_center(self, out):
        self.center = self.center * 0.9 + out.mean(0) * 0.1

class ELRLoss(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.target = torch.zeros(100, 8)

    def forward(self, index, out):
        self.target[index] = 0.7 * self.target[index] + 0.3 * out.detach()
        return (self.target[index] * out).sum()

with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    dino = DINOLoss()  #! untracked-object dino
    elr = ELRLoss().to("cpu")  #! untracked-object elr
    session.track(model=model, optimizer=optimizer)
    for epoch in session.epochs(3):
        for index, x in session.batches(loader):
            loss = dino(model(x)) + elr(index, model(x))
            optimizer.zero_grad(); loss.backward(); optimizer.step()
""",
)

tracked(
    "iterators of the script that go on: of itertools, a generator, a generator expression",
    """
def warmup():
    for i in itertools.count(1):
        yield min(1.0, i / 10)

counter = itertools.count()
ramp = warmup()
rates = (0.1 / n for n in range(1, 100))
for epoch in session.epochs(3):
    for x in session.batches(loader):
        optimizer.param_groups[0]["lr"] = next(ramp) * next(rates) * (1 + next(counter) % 2)  #! carried-variable ramp rates counter
        train_step(x)
""",
)

wrong(
    "an object whose method is called beside methods of a tracked one",
    """
class Net(torch.nn.Module):
    def reset_noise(self):
        self.noise.normal_()

class Lookahead:
    def __init__(self, optimizer):
        self.optimizer, self.n = optimizer, 0
        self.slow = [p.detach().clone() for p in optimizer.param_groups[0]["params"]]

    def after(self):
        self.n += 1
        if self.n % 5 == 0:
            for slow, p in zip(self.slow, self.optimizer.param_groups[0]["params"]):
                slow.add_(p.data - slow, alpha=0.5)
                p.data.copy_(slow)

class Trainer:
    def __init__(self):
        self.temperature = 1.0

    def fit(self, session, net, optimizer, lookahead):
        for epoch in session.epochs(3):
            for x in session.batches(loader):
                net.reset_noise()
                train_step(net, x, self.temperature)  #! carried-variable self.temperature
                lookahead.after()
                self.temperature *= 0.9

with trainerd.session() as session:
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    session.track(net=net, optimizer=optimizer)
    lookahead = Lookahead(optimizer)  #! untracked-object lookahead
    trainer = Trainer()
    trainer.fit(session, net, optimizer, lookahead)
""",
)

tracked(
    "lists and arrays that each epoch shuffles again",
    """
order, numbers = list(range(64)), np.arange(64)
pairs = list(zip(xs, ys))
files = glob("*.pt")
weights = torch.ones(64)
samples, chosen, rows = list(range(64)), list(range(64)), list(range(64))
loader = torch.utils.data.DataLoader(samples, 8)
rng = np.random.default_rng(0)
session.track(rng=rng)

def mix(items):
    random.shuffle(items)  #! carried-variable pairs

for epoch in session.epochs(3):
    random.shuffle(order)  #! carried-variable order
    rng.shuffle(numbers)  #! carried-variable numbers
    mix(pairs)
    files.reverse()  #! carried-variable files
    weights[:] = weights * 0.9  #! carried-variable weights
    random.shuffle(samples)  #! carried-variable samples
    random.shuffle(chosen)  #! carried-variable chosen
    random.shuffle(rows)  #! carried-variable rows
    for x in session.batches(rows):
        train_step(x)
    for x in session.batches(loader):
        train_step(x)
    for x in session.batches(torch.utils.data.DataLoader(torch.utils.data.Subset(data, chosen), 8)):
        train_step(x)
    for i in session.batches(range(8)):
        train_step(xs[order[i]], numbers[i], pairs[i], files[i], weights[i])
""",
)
