"""Loops that resume exactly: the analysis has nothing to say about them."""

# ruff: noqa: E501 - the scripts are as people write them

RIGHT = {}

RIGHT["the loop of the tutorial"] = """
import torch, trainerd
from torch.optim.lr_scheduler import StepLR

def evaluate(model, loader):
    right = total = 0
    for x, y in loader:
        right += (model(x).argmax(1) == y).sum().item()
        total += len(y)
    return right / total

def main():
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = StepLR(optimizer, 2)
    loader, valid = make_loaders()
    with trainerd.session() as session:
        session.track(model=model, optimizer=optimizer, scheduler=scheduler)
        for epoch in session.epochs(10):
            model.train()
            for x, y in session.batches(loader):
                loss = torch.nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                session.log(loss=loss.item())
            scheduler.step()
            accuracy = evaluate(model, valid)
            session.report(accuracy=accuracy)
            print(f"epoch {epoch}: {accuracy:.3f}")

main()
"""

RIGHT["a progress bar, a timer and a count for messages only"] = """
import time
import torch, trainerd
from tqdm import tqdm
with trainerd.session() as s:
    model = torch.nn.Linear(1, 1)
    opt = torch.optim.Adam(model.parameters())
    s.track(model=model, opt=opt)
    began = time.perf_counter()
    for epoch in s.epochs(3):
        pbar = tqdm(s.batches(loader))
        for i, x in enumerate(pbar):
            loss = model(x).mean()
            opt.zero_grad(); loss.backward(); opt.step()
            now = time.perf_counter()
            if i % 10 == 0:
                print(f"{i}: {loss.item():.3f}, {now - began:.1f} s")
            pbar.set_postfix(loss=loss.item())
            began = time.perf_counter()
"""

RIGHT["values and variables of the session"] = """
import torch, trainerd
with trainerd.session() as session:
    model = build()
    optimizer = torch.optim.AdamW(model.parameters())
    session.track(model=model, optimizer=optimizer)
    best = session.value("best", 0.0)
    patience, seen = session.value("patience", 5), session.value("seen", [])
    carry = session.variables(total=0.0, hidden=None)
    history = session.value("history", []).value
    for epoch in session.epochs(10):
        for x in session.batches(loader):
            out, carry.hidden = model(x, carry.hidden)
            loss = out.mean(); optimizer.zero_grad(); loss.backward(); optimizer.step()
            carry.total += loss.item()
            seen.value.append(loss.item())
            history.append(loss.item())
        accuracy = evaluate(model)
        if accuracy > best.value:
            best.value = accuracy
            patience.value = 5
        else:
            patience.value -= 1
        session.report(accuracy=accuracy, mean=carry.total)
        carry.total = 0.0
        if patience.value == 0:
            break
    print(best.value)
"""

RIGHT["an evaluation loop may count, for it is run again as a whole"] = """
import torch, trainerd
with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    for epoch in session.epochs(10):
        for x, y in session.batches(train):
            loss = model(x, y); optimizer.zero_grad(); loss.backward(); optimizer.step()
        right = total = 0
        for i, (x, y) in enumerate(session.batches(valid, train=False)):
            right += (model(x).argmax(1) == y).sum().item(); total += len(y)
            if i == 100:
                break
        session.report(accuracy=right / total)
"""

RIGHT["steps without a loader"] = """
import torch, trainerd
with trainerd.session() as session:
    model = GPT(); optimizer = torch.optim.AdamW(model.parameters())
    session.track(model=model, optimizer=optimizer)
    for step in session.steps(1000):
        x, y = get_batch("train")
        lr = schedule(step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = model(x, y)
        loss.backward(); optimizer.step(); optimizer.zero_grad(set_to_none=True)
        session.log(loss=loss.item())
        if step % 100 == 0:
            print(step, loss.item())
"""

RIGHT["gradient accumulation by the session"] = """
import torch, trainerd
with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cuda")
    session.track(model=model, optimizer=optimizer, scaler=scaler)
    for epoch in session.epochs(10):
        for i, (x, y) in session.enumerate(train, accumulate=4):
            scaler.scale(model(x, y) / 4).backward()
            if session.ends_step:
                scaler.step(optimizer); scaler.update(); optimizer.zero_grad()
            if i % 50 == 0:
                session.log(lr=optimizer.param_groups[0]["lr"])
"""

RIGHT["a function that is passed the session"] = """
import torch, trainerd
def train_epoch(s, net, optimizer, loader, device):
    net.train()
    for x, y in s.batches(loader):
        x, y = x.to(device), y.to(device)
        optimizer.zero_grad()
        loss = net(x, y)
        loss.backward()
        optimizer.step()

def run():
    net = build()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with trainerd.session("run", every={"steps": 100}) as s:
        s.track(net=net, optimizer=optimizer)
        for epoch in s.epochs(3):
            train_epoch(s, net, optimizer, loader, "cpu")
"""

RIGHT["objects tracked in another function"] = """
import torch, trainerd
def setup(session, model, optimizer, scheduler):
    session.track(model=model, optimizer=optimizer, scheduler=scheduler)

with trainerd.session() as session:
    net = build()
    adam = torch.optim.Adam(net.parameters())
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 10)
    setup(session, net, adam, plan)
    for epoch in session.epochs(10):
        for x in session.batches(loader):
            adam.zero_grad(); net(x).mean().backward(); adam.step()
        plan.step()
"""

RIGHT["a schedule made of schedules"] = """
import torch, trainerd
from torch.optim.lr_scheduler import LinearLR, CosineAnnealingLR, SequentialLR
with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    warm = LinearLR(optimizer, 0.1, total_iters=5)
    cosine = CosineAnnealingLR(optimizer, 50)
    scheduler = SequentialLR(optimizer, [warm, cosine], milestones=[5])
    session.track(model=model, optimizer=optimizer, scheduler=scheduler)
    for epoch in session.epochs(55):
        for x in session.batches(loader):
            optimizer.zero_grad(); model(x).mean().backward(); optimizer.step()
        scheduler.step()
"""

RIGHT["several objects from a dictionary"] = """
import torch, trainerd
with trainerd.session() as session:
    g, d = Generator(), Discriminator()
    objects = dict(g=g, d=d, opt_g=torch.optim.Adam(g.parameters()), opt_d=torch.optim.Adam(d.parameters()))
    session.track(**objects)
    for epoch in session.epochs(2):
        for real in session.batches(loader):
            fake = g(torch.randn(8, 4))
            loss_d = d(real).mean() - d(fake.detach()).mean()
            objects["opt_d"].zero_grad(); loss_d.backward(); objects["opt_d"].step()
            loss_g = -d(g(torch.randn(8, 4))).mean()
            objects["opt_g"].zero_grad(); loss_g.backward(); objects["opt_g"].step()
"""

RIGHT["a trainer class whose state is tracked"] = """
import torch, trainerd
class Trainer:
    def __init__(self, session):
        self.session = session
        self.model = build()
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1)
        self.best = session.value("best", 0.0)
        session.track(model=self.model, optimizer=self.optimizer)
    def fit(self, loader, epochs):
        for epoch in self.session.epochs(epochs):
            for x, y in self.session.batches(loader):
                loss = self.loss(x, y)
                self.optimizer.zero_grad(); loss.backward(); self.optimizer.step()
            self.best.value = max(self.best.value, self.evaluate())
"""

RIGHT["branches that assign on every path"] = """
import torch, trainerd
with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    for epoch in session.epochs(3):
        for batch in session.batches(loader):
            try:
                x, y = batch
            except ValueError:
                continue
            if epoch == 0:
                scale = 0.1
            elif epoch == 1:
                scale = 0.5
            else:
                scale = 1.0
            match y.dim():
                case 1: target = y
                case _: target = y.argmax(1)
            with torch.autocast("cpu"):
                out = model(x)
            def closure():
                optimizer.zero_grad()
                loss = criterion(out, target) * scale
                loss.backward()
                return loss
            optimizer.step(closure)
            norms = [p.norm() for p in model.parameters()]
            worst = max(norm.item() for norm in norms)
            session.log(worst=worst)
"""

RIGHT["two loops, one after the other"] = """
import torch, trainerd
with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    for epoch in session.epochs(3):
        for x in session.batches(labelled):
            loss = model(x).mean(); optimizer.zero_grad(); loss.backward(); optimizer.step()
        for x in session.batches(unlabelled):
            loss = model(x).var(); optimizer.zero_grad(); loss.backward(); optimizer.step()
"""

RIGHT["two loaders in step"] = """
import torch, trainerd
with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    for epoch in session.epochs(3):
        for x, u in session.batches(labelled, unlabelled):
            loss = model(x).mean() + model(u).var(); optimizer.zero_grad(); loss.backward(); optimizer.step()
"""

RIGHT["an average of weights, and a frozen teacher"] = """
import copy, torch, trainerd
from torch.optim.swa_utils import AveragedModel
with trainerd.session() as session:
    student = build(); teacher = copy.deepcopy(student).eval()
    averaged = AveragedModel(student)
    optimizer = torch.optim.SGD(student.parameters(), 0.1)
    session.track(student=student, averaged=averaged, optimizer=optimizer)
    for epoch in session.epochs(3):
        for x in session.batches(loader):
            with torch.no_grad():
                target = teacher(x)
            loss = (student(x) - target).pow(2).mean(); optimizer.zero_grad(); loss.backward(); optimizer.step()
            averaged.update_parameters(student)
"""

RIGHT["a generator of the script's own that is tracked, one that the loader has"] = """
import numpy as np, torch, trainerd
with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    noise = torch.Generator().manual_seed(1)
    order = torch.Generator().manual_seed(2)
    loader = torch.utils.data.DataLoader(data, 8, shuffle=True, generator=order)
    session.track(model=model, optimizer=optimizer, noise=noise)
    for epoch in session.epochs(3):
        for x in session.batches(loader):
            x = x + torch.randn(x.shape, generator=noise) + np.random.normal()
            loss = model(x).mean(); optimizer.zero_grad(); loss.backward(); optimizer.step()
"""

RIGHT["an iterator begun again by hand"] = """
import torch, trainerd
with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    it = iter(session.batches(loader))
    while session.step < 1000:
        try:
            x = next(it)
        except StopIteration:
            it = iter(session.batches(loader))
            x = next(it)
        loss = model(x).mean(); optimizer.zero_grad(); loss.backward(); optimizer.step()
"""

RIGHT["a line that says it is all right"] = """
import torch, trainerd
with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    shown = 0
    for epoch in session.epochs(3):
        for x in session.batches(loader):
            loss = model(x).mean(); optimizer.zero_grad(); loss.backward(); optimizer.step()
            shown += 1  # trainerd: ok
"""

RIGHT["a module that counts its own calls"] = """
import torch, trainerd
class Net(torch.nn.Module):
    def fit(self, session, loader, optimizer):
        session.track(net=self, optimizer=optimizer)
        for epoch in session.epochs(2):
            for x in session.batches(loader):
                self.calls += 1
                loss = self(x).mean(); optimizer.zero_grad(); loss.backward(); optimizer.step()
"""

RIGHT["a list that is filled and emptied within one step"] = """
import torch, trainerd
with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    for epoch in session.epochs(3):
        for x in session.batches(loader):
            losses = []
            for head in model.heads:
                losses.append(head(x).mean())
            total = 0.0
            for loss in losses:
                total = total + loss
            optimizer.zero_grad(); total.backward(); optimizer.step()
            session.log(loss=total.item())
"""

RIGHT["a script without a session has nothing to resume"] = """
import torch
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
total = 0
for epoch in range(3):
    for x in loader:
        total += 1
"""

RIGHT["early stopping by a report"] = """
import torch, trainerd
from trainerd import session as open_session
with open_session(run_dir="/runs/a") as run:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    run.track(model=model, optimizer=optimizer, plateau=plateau)
    for epoch in run.epochs(50):
        for x in run.batches(loader):
            loss = model(x).mean(); optimizer.zero_grad(); loss.backward(); optimizer.step()
        score = evaluate(model)
        run.report(score=score)
        plateau.step(score)
        if optimizer.param_groups[0]["lr"] < 1e-6:
            break
"""

RIGHT["a scaler that is off, and a folder that is changed before and inside"] = """
import os, torch, trainerd
os.chdir("/data")
with trainerd.session() as session:
    os.chdir("/tmp")
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.cuda.amp.GradScaler(enabled=False)
    session.track(model=model, optimizer=optimizer)
    for epoch in session.epochs(3):
        for x in session.batches(loader):
            scaler.scale(model(x).mean()).backward(); scaler.step(optimizer); scaler.update(); optimizer.zero_grad()
"""

RIGHT["an entry that each epoch sets, a metric that each epoch resets, a look at one batch"] = """
import torch, torchmetrics, trainerd
with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    config = {"lr": 1.0}
    accuracy = torchmetrics.Accuracy()
    for epoch in session.epochs(3):
        config["lr"] = 0.1 * epoch
        example = next(iter(valid))
        for x in session.batches(loader):
            train_step(x, config["lr"])
        for x, y in valid:
            accuracy.update(model(x), y)
        session.report(accuracy=accuracy.compute(), shown=show(example))
        accuracy.reset()
"""

RIGHT["a count modulo the batches of a step"] = """
import torch, trainerd
with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    for epoch in session.epochs(3):
        for i, x in enumerate(session.batches(loader, accumulate=4)):
            (model(x).mean() / 4).backward()
            if (i + 1) % 4 == 0:
                optimizer.step(); optimizer.zero_grad()
"""

RIGHT["metrics called in an evaluation, and one of which nothing is read after the loop"] = """
import torch, torchmetrics, trainerd
with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    shown = torchmetrics.Accuracy()
    accuracy = torchmetrics.Accuracy()
    for epoch in session.epochs(3):
        for x, y in session.batches(loader):
            pred = model(x)
            print(shown(pred, y))
            optimizer.zero_grad()
            pred.mean().backward()
            optimizer.step()
        for x, y in validation:
            accuracy(model(x), y)
        session.report(accuracy=accuracy.compute())
        accuracy.reset()
"""

RIGHT["a trainer of Transformers, which tracks what trains"] = """
import trainerd
from transformers import Trainer
from trainerd.integrations.transformers import protect
with trainerd.session() as session:
    trainer = Trainer(build(), train_dataset=data)
    protect(trainer, session)
    trainer.train()
"""

RIGHT["the callback of Lightning, which tracks all that the trainer trains"] = """
import torch, trainerd
from lightning.pytorch import LightningModule, Trainer
from trainerd.integrations.lightning import TrainerdCallback

class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def training_step(self, batch, batch_idx):
        return self.layer(batch).mean()
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

with trainerd.session() as session:
    Trainer(callbacks=[TrainerdCallback(session=session)]).fit(Net(), loader)
"""

RIGHT["optimizers of parts of a tracked model"] = """
import torch, trainerd
with trainerd.session() as session:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))
    head, body = model[1], model.get_submodule("0")
    last = list(model.children())[-1]
    inner = getattr(body, "weight")
    optimizers = [
        torch.optim.SGD(head.parameters(), 0.1),
        torch.optim.SGD(body.parameters(), 0.1),
        torch.optim.SGD(last.parameters(), 0.1),
    ]
    session.track(model=model, a=optimizers[0], b=optimizers[1], c=optimizers[2])
    for x in session.batches(loader):
        train(optimizers, x)
"""

RIGHT["a session that a function of another file tracks with"] = """
import torch, trainerd
from training import protect, train_step

model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with trainerd.session() as session:
    protect(session, model, optimizer)
    for epoch in session.epochs(10):
        for x in session.batches(loader):
            train_step(x)
"""

RIGHT["a session that a caller's loop gets"] = """
import trainerd

def attempt(folder, loop, tick):
    with trainerd.session(folder) as session:
        loop(session, tick)
"""

RIGHT["a session that a trainer of another file tracks with, beside the script"] = """
import torch, trainerd
from training import Trainer

model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with trainerd.session() as s:
    trainer = Trainer(model=model, optimizer=optimizer, run=s)
    s.track(trainer=trainer)
    for epoch in s.epochs(10):
        for x in s.batches(loader):
            trainer.step(x)
"""

RIGHT["generators in functions that the loop calls: tracked, made there, or of another object"] = """
import numpy as np, torch, trainerd

kept = np.random.default_rng(0)
data = np.random.default_rng(1)

def jitter(x):
    return x + kept.normal()

def fresh(x):
    data = np.random.default_rng(len(x))
    return x + data.normal()

class Noise:
    def __init__(self):
        self.rng = torch.Generator()
    def add(self, x):
        return x + torch.randn(x.shape, generator=self.rng)

class Split:
    def __init__(self):
        self.rng = torch.Generator()
        self.order = torch.randperm(10, generator=self.rng)

noise, split = Noise(), Split()
x_all = data.normal(size=100)
with trainerd.session() as session:
    session.track(model=model, optimizer=optimizer, kept=kept, rng=noise.rng)
    for x in session.batches(loader):
        train_step(fresh(jitter(noise.add(x))), split.order)
"""

RIGHT["losses that are modules and tracked, by themselves and within the model"] = """
import torch, trainerd
class DINOLoss(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("center", torch.zeros(8))
        self.calls = 0

    def forward(self, out):
        self.calls += 1
        self.center = self.center * 0.9 + out.mean(0) * 0.1
        return (out - self.center).mean()

class Both(torch.nn.Module):
    def __init__(self, net, loss):
        super().__init__()
        self.net, self.loss = net, loss

with trainerd.session() as session:
    dino, inner = DINOLoss(), DINOLoss()
    model = Both(build(), inner); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer, dino=dino)
    for epoch in session.epochs(3):
        for x in session.batches(loader):
            loss = dino(model.net(x)) + inner(model.net(x))
            optimizer.zero_grad(); loss.backward(); optimizer.step()
"""

RIGHT[
    "tensors that each iteration fills before it reads them, parameters, gradients, and a kept momentum"
] = """
import torch, trainerd
with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    parameters = list(model.parameters())
    buffers = [torch.zeros_like(p) for p in parameters]
    sums = [torch.zeros_like(p) for p in parameters]
    names = {name: torch.empty_like(p) for name, p in model.named_parameters()}
    velocities = session.value("velocities", [torch.zeros_like(p) for p in parameters]).value
    for x in session.batches(loader):
        model(x).mean().backward()
        for p, b in zip(parameters, buffers):
            b.copy_(p.grad).mul_(0.5)
            b.add_(p)
        for total in sums:
            total.zero_()
        for p, total in zip(parameters, sums):
            total += p.grad
        for name, p in model.named_parameters():
            noise = names[name]
            noise.normal_()
            p.grad.add_(noise)
        for p in parameters:
            p.grad.clamp_(-1, 1)
            p.requires_grad_(True)
            p.data.add_(p.grad, alpha=-0.1)
        torch._foreach_mul_([p.grad for p in parameters], 0.5)
        for group in optimizer.param_groups:
            group["lr"] *= 0.9
            for p in group["params"]:
                p.grad.mul_(0.5)
        for p, v in zip(parameters, velocities):
            v.mul_(0.9).add_(p.grad)
            p.data.add_(v, alpha=-0.1)
        model.zero_grad()
"""

RIGHT["gradients copied for output, and a count printed after the loop"] = """
import torch, trainerd
with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    gradients = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    global_step = 0
    for epoch in session.epochs(3):
        for x in session.batches(loader):
            optimizer.zero_grad(); model(x).mean().backward(); optimizer.step()
            for name, p in model.named_parameters():
                gradients[name].copy_(p.grad)
            print(sum(g.norm().item() for g in gradients.values()))
            global_step += 1
        print(f"epoch {epoch}, step {global_step}")
"""

RIGHT["orders that each epoch makes again, that are shuffled once, or that are values of the session"] = """
import random
import numpy as np, torch, trainerd

class Batches:
    def __init__(self):
        self.order = list(range(64))

    def __iter__(self):
        random.shuffle(self.order)
        return (xs[i] for i in self.order)

with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    once = list(range(64))
    random.shuffle(once)
    carry = session.variables(order=np.arange(64))
    box = session.value("pairs", list(zip(xs, ys)))
    buffer = np.zeros(64)
    places, subset = list(range(64)), list(range(64))
    by_place = torch.utils.data.DataLoader(data, 8, sampler=places)
    some = torch.utils.data.DataLoader(torch.utils.data.Subset(data, subset), 8)
    for epoch in session.epochs(3):
        random.shuffle(places)
        random.shuffle(subset)
        order = list(range(64))
        random.shuffle(order)
        np.random.shuffle(carry.order)
        random.shuffle(box.value)
        buffer[:] = np.random.permutation(64)
        dataset.shuffle(epoch)
        for i in session.batches(range(8)):
            train_step(once[i], order[i], carry.order[i], box.value[i], buffer[i])
        for x in session.batches(Batches()):
            train_step(x)
        for x in session.batches(by_place):
            train_step(x)
        for x in session.batches(some):
            train_step(x)
"""
