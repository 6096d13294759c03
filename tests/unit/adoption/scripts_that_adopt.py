"""Plain training scripts of the usual shapes, which are changed so that they resume."""

PARTS = """\
import argparse
import copy
import math
import random
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import optim
from torch.utils.data import DataLoader, TensorDataset


def make_data(n=24):
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(n, 4, generator=generator)
    return TensorDataset(x, (x.sum(1) > 0).long())


def tqdm(iterable, **options):
    return iterable

"""

MODULE_LEVEL = (
    PARTS
    + """
torch.manual_seed(1)
device = torch.device("cpu")

# the data
loader = DataLoader(make_data(), batch_size=4)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).to(device)
optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)  # with momentum

for epoch in range(2):
    # one pass
    for x, y in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)   # aligned
        loss.backward()
        optimizer.step()

    print("epoch", epoch)
print("done")
"""
)

RUNNING_LOSS = (
    PARTS
    + """
torch.manual_seed(0)
trainloader = DataLoader(make_data(), batch_size=4, shuffle=True)
net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 2))
criterion = nn.CrossEntropyLoss()
optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

for epoch in range(2):  # loop over the dataset multiple times

    running_loss = 0.0
    for i, data in enumerate(trainloader, 0):
        # get the inputs; data is a list of [inputs, labels]
        inputs, labels = data

        # zero the parameter gradients
        optimizer.zero_grad()

        # forward + backward + optimize
        outputs = net(inputs)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()

        # print statistics
        running_loss += loss.item()
        if i % 2 == 1:    # print every 2 mini-batches
            print(f'[{epoch + 1}, {i + 1:5d}] loss: {running_loss / 2:.3f}')
            running_loss = 0.0

print('Finished Training')
"""
)

TRAIN_FUNCTION = (
    PARTS
    + """
def train(args, model, device, train_loader, optimizer, epoch):
    model.train()
    for batch_idx, (data, target) in enumerate(train_loader):
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        output = model(data)
        loss = F.cross_entropy(output, target)
        loss.backward()
        optimizer.step()
        if batch_idx % args.log_interval == 0:
            print('Train Epoch: {} [{}/{}]\\tLoss: {:.6f}'.format(
                epoch, batch_idx * len(data), len(train_loader.dataset), loss.item()))
            if args.dry_run:
                break


def test(model, device, test_loader):
    model.eval()
    test_loss = 0
    correct = 0
    with torch.no_grad():
        for data, target in test_loader:
            output = model(data.to(device))
            test_loss += F.cross_entropy(output, target, reduction='sum').item()  # sum up batch loss
            correct += output.argmax(1).eq(target).sum().item()
    print('Test set: Average loss: {:.4f}, {}'.format(test_loss / len(test_loader.dataset), correct))


def main():
    # Training settings
    parser = argparse.ArgumentParser(description='an example')
    parser.add_argument('--epochs', type=int, default=2)
    parser.add_argument('--dry-run', action='store_true')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--log-interval', type=int, default=2)
    args = parser.parse_args([])
    torch.manual_seed(args.seed)
    device = torch.device("cpu")
    train_loader = DataLoader(make_data(), batch_size=4, shuffle=True)
    test_loader = DataLoader(make_data(8), batch_size=4)

    model = nn.Linear(4, 2).to(device)
    optimizer = optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    for epoch in range(1, args.epochs + 1):
        train(args, model, device, train_loader, optimizer, epoch)
        test(model, device, test_loader)
        scheduler.step()


if __name__ == '__main__':
    main()
"""
)

AMP_AND_CLIPPING = (
    PARTS
    + """
def main(epochs=2, use_amp=False):
    torch.manual_seed(0)
    loader = DataLoader(make_data(), batch_size=4)
    model = nn.Linear(4, 2)
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=epochs * len(loader))
    scaler = torch.amp.GradScaler("cpu", enabled=use_amp)
    for epoch in range(epochs):
        for x, y in tqdm(loader, desc=f"epoch {epoch}"):
            with torch.autocast("cpu", enabled=use_amp):
                loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()


main()
"""
)

BEST_AND_HISTORY = (
    PARTS
    + """
torch.manual_seed(3)
train_loader = DataLoader(make_data(), batch_size=4)
val_loader = DataLoader(make_data(8), batch_size=4)
model = nn.Linear(4, 2)
optimizer = optim.Adam(model.parameters(), lr=1e-2)
scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
best_loss = float("inf")
patience = 0
history = {"train": [], "val": []}
for epoch in range(4):
    total = 0.0
    for x, y in train_loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item()
    model.eval()
    with torch.no_grad():
        val_loss = sum(F.cross_entropy(model(x), y).item() for x, y in val_loader)
    model.train()
    history["train"].append(total / len(train_loader))
    history["val"].append(val_loss)
    scheduler.step(val_loss)
    if val_loss < best_loss:
        best_loss, patience = val_loss, 0
    else:
        patience += 1
        if patience > 2:
            break
"""
)

GAN = (
    PARTS
    + """
torch.manual_seed(0)
dataloader = DataLoader(make_data(), batch_size=4)
netG = nn.Linear(2, 4)
netD = nn.Linear(4, 1)
optimizerD = optim.Adam(netD.parameters(), lr=1e-2)
optimizerG = optim.Adam(netG.parameters(), lr=1e-2)

for epoch in range(2):
    for i, (real, _) in enumerate(dataloader):
        netD.zero_grad()
        errD_real = F.softplus(-netD(real)).mean()
        errD_real.backward()
        fake = netG(torch.randn(len(real), 2))
        errD_fake = F.softplus(netD(fake.detach())).mean()
        errD_fake.backward()
        optimizerD.step()
        netG.zero_grad()
        errG = F.softplus(-netD(fake)).mean()
        errG.backward()
        optimizerG.step()
        print('[%d][%d/%d] %.4f' % (epoch, i, len(dataloader), errG.item()))
"""
)

EMA = (
    PARTS
    + """
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def main():
    torch.manual_seed(0)
    loader = DataLoader(make_data(), batch_size=4)
    model = nn.Linear(4, 2)
    ema_model = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for x, y in loader:
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            ema_model.update_parameters(model)


if __name__ == "__main__":
    main()
"""
)

GLOBAL_STEP = (
    PARTS
    + '''
class Net(nn.Module):
    """A model."""

    def __init__(self, width):
        super().__init__()
        self.body = nn.Linear(4, width)
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        return self.head(torch.relu(self.body(x)))


def fit(model, train_loader, optimizer, epochs):
    global_step = 0
    losses = []
    for epoch in range(epochs):
        for batch in train_loader:
            x, y = batch
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            global_step += 1
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * 0.9 ** global_step
            losses.append(loss.item())
    return losses


def main():
    np.random.seed(0)
    torch.manual_seed(0)
    train_loader = DataLoader(make_data(), batch_size=4)
    model = Net(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = fit(model, train_loader, optimizer, 2)
    print(f"{sum(losses):.4f}")


if __name__ == "__main__":
    main()
'''
)

ENDLESS = (
    PARTS
    + """
def cycle(loader):
    while True:
        for batch in loader:
            yield batch


torch.manual_seed(0)
loader = DataLoader(make_data(), batch_size=4)
model = nn.Linear(4, 2)
optimizer = optim.SGD(model.parameters(), lr=0.1)
data = cycle(loader)
for step in range(10):
    for group in optimizer.param_groups:
        group["lr"] = 0.1 / (step + 1)
    x, y = next(data)
    # the step
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 4 == 0:
        print(step, loss.item())
"""
)

STOP_ITERATION = (
    PARTS
    + """
def main():
    torch.manual_seed(0)
    train_loader = DataLoader(make_data(), batch_size=4)
    model = nn.Linear(4, 2)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    train_iter = iter(train_loader)
    for it in range(1, 11):
        try:
            x, y = next(train_iter)
        except StopIteration:
            train_iter = iter(train_loader)
            x, y = next(train_iter)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if it % 5 == 0:
            print(it)


main()
"""
)

WHILE_STEPS = (
    PARTS
    + """
torch.manual_seed(0)
loader = DataLoader(make_data(), batch_size=4)
model = nn.Linear(4, 2)
optimizer = optim.SGD(model.parameters(), lr=0.1)
max_steps = 9
step = 0
while step < max_steps:
    for x, y in loader:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 3 == 0:
            print("step", step)
        if step >= max_steps:
            break
"""
)

OWN_BATCHES = (
    PARTS
    + """
torch.manual_seed(1337)
data = torch.randn(64, 4)
max_iters = 9
model = nn.Linear(4, 4)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)


def get_batch():
    ix = torch.randint(len(data) - 1, (4,))
    return data[ix], data[ix + 1]


@torch.no_grad()
def estimate_loss():
    return torch.stack([F.mse_loss(model(x), y) for x, y in [get_batch() for _ in range(2)]]).mean()


for iter in range(max_iters):
    # every once in a while evaluate the loss
    if iter % 3 == 0:
        print(f"step {iter}: {estimate_loss():.4f}")
    xb, yb = get_batch()
    loss = F.mse_loss(model(xb), yb)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
"""
)

UNSEEDED = (
    PARTS
    + """
EPOCHS = 2
loader = DataLoader(make_data(), batch_size=4, shuffle=True)
model = nn.Linear(4, 2)
opt = optim.RMSprop(model.parameters())
for epoch in tqdm(range(EPOCHS)):
    for x, y in loader:
        opt.zero_grad()
        F.cross_entropy(model(x + torch.randn_like(x)), y).backward()
        opt.step()
"""
)

BAR_KEPT = (
    PARTS
    + """
def train_one_epoch(model, loader, opt, criterion):
    total, seen = 0.0, 0
    bar = tqdm(loader, leave=False)
    for x, y in bar:
        opt.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        opt.step()
        total += loss.item() * len(x)
        seen += len(x)
    return total / seen


def evaluate(model, loader, criterion):
    total = 0.0
    for x, y in loader:
        total += criterion(model(x), y).item()
    return total / len(loader)


def run(config):
    random.seed(config["seed"])
    torch.manual_seed(config["seed"])
    loaders = {"train": DataLoader(make_data(), batch_size=4), "val": DataLoader(make_data(8), batch_size=4)}
    model = nn.Linear(4, 2)
    opt = optim.SGD(model.parameters(), lr=config["lr"])
    sched = optim.lr_scheduler.CosineAnnealingLR(opt, config["epochs"])
    criterion = nn.CrossEntropyLoss()
    best = math.inf
    for epoch in range(config["epochs"]):
        started = time.time()
        train_loss = train_one_epoch(model, loaders["train"], opt, criterion)
        val_loss = evaluate(model, loaders["val"], criterion)
        sched.step()
        if val_loss < best:
            best = val_loss
        print(f"{epoch}: {train_loss:.3f} {val_loss:.3f} best {best:.3f} in {time.time() - started:.1f} s")


if __name__ == "__main__":
    config = {"seed": 0, "lr": 0.1, "epochs": 3}
    run(config)
"""
)

ONE_PASS = (
    PARTS
    + """
torch.manual_seed(0)
loader = DataLoader(make_data(), batch_size=4)
model = nn.Linear(4, 2)
optimizer = optim.SGD(model.parameters(), lr=0.1)
for i, (x, y) in enumerate(tqdm(loader, total=len(loader)), start=1):
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    if not torch.isfinite(loss):
        continue
    optimizer.step()
    print(i, loss.item())
"""
)

TWO_LOADERS = (
    PARTS
    + """
def main():
    torch.manual_seed(0)
    source_loader = DataLoader(make_data(), batch_size=4)
    target_loader = DataLoader(make_data(16), batch_size=4)
    features, head = nn.Linear(4, 8), nn.Linear(8, 2)
    params = list(features.parameters()) + list(head.parameters())
    optimizer = optim.SGD(params, lr=0.1)
    for epoch in range(3):
        for (x, y), (u, _) in zip(source_loader, target_loader):
            loss = F.cross_entropy(head(features(x)), y) + 0.1 * features(u).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


main()
"""
)

HIDDEN_STATE = (
    PARTS
    + """
def repackage(h):
    return h.detach()


torch.manual_seed(0)
loader = DataLoader(make_data(), batch_size=4, drop_last=True)
rnn = nn.GRUCell(4, 6)
out = nn.Linear(6, 2)
optimizer = optim.SGD([{"params": rnn.parameters()}, {"params": out.parameters(), "lr": 0.05}], lr=0.1)
for epoch in range(2):
    hidden = torch.zeros(4, 6)
    for x, y in loader:
        hidden = repackage(hidden)
        hidden = rnn(x, hidden)
        loss = F.cross_entropy(out(hidden), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"{epoch}: {loss.item():.3f}")
"""
)

ACCUMULATION = (
    PARTS
    + """
torch.manual_seed(0)
accum = 4
loader = DataLoader(make_data(40), batch_size=4)
model = nn.Linear(4, 2)
optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = optim.lr_scheduler.StepLR(optimizer, 2)
optimizer.zero_grad()
for epoch in range(2):
    for i, (x, y) in enumerate(loader):
        loss = F.cross_entropy(model(x), y) / accum
        loss.backward()
        # a step every few batches, and at the end
        if (i + 1) % accum == 0 or i + 1 == len(loader):
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
"""
)

ACCUMULATION_FROM_1 = (
    PARTS
    + """
torch.manual_seed(0)
loader = DataLoader(make_data(36), batch_size=4)
model = nn.Linear(4, 2)
optimizer = optim.SGD(model.parameters(), lr=0.1)
for epoch in range(2):
    for i, (x, y) in enumerate(tqdm(loader), 1):
        loss = F.cross_entropy(model(x), y)
        (loss / 4).backward()
        if not i % 4 or len(loader) == i:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
"""
)

RIGHT = {
    name.lower(): source for name, source in dict(globals()).items() if name.isupper() and name != "PARTS"
}

DRAWS_OR_SHUFFLES = {"running_loss", "train_function", "unseeded", "gan"}
"""Those that draw while they train, or shuffle. All others end with the same weights, plain and changed."""
