"""Ports of public training scripts that resume exactly: the analysis has nothing to say about them."""

# ruff: noqa: E501 - the scripts are as people write them

PORTS = {}

PORTS["MNIST basic"] = """
import argparse, torch, trainerd
import torch.nn.functional as F
import torch.optim as optim
from torch.optim.lr_scheduler import StepLR

def train(args, model, device, train_loader, optimizer, epoch, session):
    model.train()
    for batch_idx, (data, target) in enumerate(session.batches(train_loader)):
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        output = model(data)
        loss = F.nll_loss(output, target)
        loss.backward()
        optimizer.step()
        if batch_idx % args.log_interval == 0:
            print("Train Epoch: {} [{}/{} ({:.0f}%)]\\tLoss: {:.6f}".format(
                epoch, batch_idx * len(data), len(train_loader.dataset),
                100. * batch_idx / len(train_loader), loss.item()))
        if args.dry_run:
            break

def test(model, device, test_loader):
    model.eval()
    test_loss = 0
    correct = 0
    with torch.no_grad():
        for data, target in test_loader:
            output = model(data.to(device))
            test_loss += F.nll_loss(output, target, reduction="sum").item()
            correct += output.argmax(dim=1, keepdim=True).eq(target.view_as(output)).sum().item()
    test_loss /= len(test_loader.dataset)
    print("Test set: Average loss: {:.4f}".format(test_loss))

def main():
    args = parse()
    model = Net().to(args.device)
    optimizer = optim.Adadelta(model.parameters(), lr=args.lr)
    scheduler = StepLR(optimizer, step_size=1, gamma=args.gamma)
    with trainerd.session(seed=args.seed) as session:
        session.track(model=model, optimizer=optimizer, scheduler=scheduler)
        for epoch in session.epochs(args.epochs):
            train(args, model, args.device, train_loader, optimizer, epoch, session)
            test(model, args.device, test_loader)
            scheduler.step()
    if args.save_model:
        torch.save(model.state_dict(), "mnist_cnn.pt")

if __name__ == "__main__":
    main()
"""

PORTS["DCGAN"] = """
import torch, trainerd
import torch.optim as optim
import torchvision.utils as vutils
netG, netD = Generator(), Discriminator()
fixed_noise = torch.randn(64, 100, 1, 1)
real_label, fake_label = 1., 0.
optimizerD = optim.Adam(netD.parameters(), lr=2e-4, betas=(0.5, 0.999))
optimizerG = optim.Adam(netG.parameters(), lr=2e-4, betas=(0.5, 0.999))
with trainerd.session() as session:
    session.track(netG=netG, netD=netD, optimizerD=optimizerD, optimizerG=optimizerG)
    for epoch in session.epochs(5):
        for i, data in session.enumerate(dataloader):
            netD.zero_grad()
            real_cpu = data[0].to(device)
            b_size = real_cpu.size(0)
            label = torch.full((b_size,), real_label, dtype=torch.float, device=device)
            output = netD(real_cpu).view(-1)
            errD_real = criterion(output, label)
            errD_real.backward()
            D_x = output.mean().item()
            fake = netG(torch.randn(b_size, 100, 1, 1, device=device))
            label.fill_(fake_label)
            output = netD(fake.detach()).view(-1)
            errD_fake = criterion(output, label)
            errD_fake.backward()
            errD = errD_real + errD_fake
            optimizerD.step()
            netG.zero_grad()
            errG = criterion(netD(fake).view(-1), label.fill_(real_label))
            errG.backward()
            optimizerG.step()
            session.log(loss_d=errD, loss_g=errG, d_x=D_x)
            if i % 500 == 0:
                with torch.no_grad():
                    sample = netG(fixed_noise).detach().cpu()
                vutils.save_image(sample, session.run_dir / f"fake-{session.step}.png")
"""

PORTS["word language model"] = """
import math, time, torch, trainerd

def repackage_hidden(h):
    if isinstance(h, torch.Tensor):
        return h.detach()
    return tuple(repackage_hidden(v) for v in h)

def train(session, carry):
    model.train()
    start_time = time.time()
    for batch, i in enumerate(session.batches(range(0, train_data.size(0) - 1, args.bptt))):
        data, targets = get_batch(train_data, i)
        model.zero_grad()
        hidden = model.init_hidden(args.batch_size) if carry.hidden is None else repackage_hidden(carry.hidden)
        output, carry.hidden = model(data, hidden)
        loss = criterion(output, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)
        for p in model.parameters():
            p.data.add_(p.grad, alpha=-carry.lr)
        session.log(loss=loss)
        if batch % args.log_interval == 0 and batch > 0:
            elapsed = time.time() - start_time
            print("| ms/batch {:5.2f} | loss {:5.2f}".format(elapsed * 1000 / args.log_interval, loss.item()))
            start_time = time.time()

with trainerd.session() as session:
    session.track(model=model)
    carry = session.variables(hidden=None, lr=args.lr, best_val_loss=None)
    for epoch in session.epochs(args.epochs):
        epoch_start_time = time.time()
        train(session, carry)
        carry.hidden = None
        val_loss = evaluate(val_data)
        print("| end of epoch {:3d} | time: {:5.2f}s".format(epoch, time.time() - epoch_start_time))
        if not carry.best_val_loss or val_loss < carry.best_val_loss:
            torch.save(model, args.save)
            carry.best_val_loss = val_loss
        else:
            carry.lr /= 4.0
"""

PORTS["seq2seq translation"] = """
import time, random, torch, trainerd
import torch.optim as optim

def train_epoch(session, dataloader, encoder, decoder, encoder_optimizer, decoder_optimizer, criterion, total):
    total.value = 0.0 if session.batch == 0 else total.value
    for data in session.batches(dataloader):
        input_tensor, target_tensor = data
        use_teacher_forcing = random.random() < 0.5
        encoder_optimizer.zero_grad()
        decoder_optimizer.zero_grad()
        encoder_outputs, encoder_hidden = encoder(input_tensor)
        loss = 0
        decoder_hidden = encoder_hidden
        decoder_input = torch.tensor([[0]])
        for di in range(target_tensor.size(0)):
            decoder_output, decoder_hidden = decoder(decoder_input, decoder_hidden, encoder_outputs)
            loss += criterion(decoder_output, target_tensor[di])
            decoder_input = target_tensor[di] if use_teacher_forcing else decoder_output.topk(1)[1].detach()
        loss.backward()
        encoder_optimizer.step()
        decoder_optimizer.step()
        total.value += loss.item()
    return total.value / len(dataloader)

def train(session, train_dataloader, encoder, decoder, n_epochs, print_every=100):
    start = time.time()
    encoder_optimizer = optim.Adam(encoder.parameters(), lr=0.001)
    decoder_optimizer = optim.Adam(decoder.parameters(), lr=0.001)
    session.track(encoder=encoder, decoder=decoder, encoder_optimizer=encoder_optimizer,
                  decoder_optimizer=decoder_optimizer)
    total = session.value("total", 0.0)
    losses = session.value("losses", [])
    for epoch in session.epochs(n_epochs):
        loss = train_epoch(session, train_dataloader, encoder, decoder, encoder_optimizer, decoder_optimizer,
                           None, total)
        losses.value.append(loss)
        if epoch % print_every == 0:
            print("%s (%d %d%%) %.4f" % (timeSince(start, epoch / n_epochs), epoch, epoch / n_epochs * 100, loss))
    showPlot(losses.value)

with trainerd.session() as session:
    train(session, loader, EncoderRNN(), DecoderRNN(), 80)
"""

PORTS["DQN"] = """
import math, random, torch, trainerd
from collections import deque, namedtuple

class ReplayMemory(object):
    def __init__(self, capacity):
        self.memory = deque([], maxlen=capacity)
    def push(self, *args):
        self.memory.append(Transition(*args))
    def sample(self, batch_size):
        return random.sample(self.memory, batch_size)
    def state_dict(self):
        return {"memory": list(self.memory)}
    def load_state_dict(self, state):
        self.memory.extend(state["memory"])

policy_net = DQN()
target_net = DQN()
target_net.load_state_dict(policy_net.state_dict())
optimizer = torch.optim.AdamW(policy_net.parameters(), lr=1e-4, amsgrad=True)
memory = ReplayMemory(10000)

def select_action(state, session):
    eps = 0.05 + 0.85 * math.exp(-1. * session.step / 1000)
    return policy_net(state) if random.random() > eps else env.sample()

with trainerd.session() as session:
    session.track(policy_net=policy_net, target_net=target_net, optimizer=optimizer, memory=memory)
    episode_durations = session.value("episode_durations", [])
    for i_episode in session.steps(600):
        state, info = env.reset()
        done = False
        t = 0
        while not done:
            action = select_action(state, session)
            next_state, reward, done = env.step(action)
            memory.push(state, action, next_state, reward)
            state = next_state
            loss = optimize_model(memory)
            t += 1
            target = target_net.state_dict()
            policy = policy_net.state_dict()
            for key in policy:
                target[key] = policy[key] * 0.005 + target[key] * 0.995
            target_net.load_state_dict(target)
        episode_durations.value.append(t + 1)
        session.log(loss=loss)
    plot_durations(episode_durations.value)
"""

PORTS["VAE"] = """
import torch, trainerd
from torch import optim

def train(epoch):
    model.train()
    for batch_idx, (data, _) in enumerate(session.batches(train_loader)):
        data = data.to(device)
        optimizer.zero_grad()
        recon_batch, mu, logvar = model(data)
        loss = loss_function(recon_batch, data, mu, logvar)
        loss.backward()
        train_loss.value += loss.item()
        optimizer.step()
        if batch_idx % args.log_interval == 0:
            print("Train Epoch: {} [{}/{}]".format(epoch, batch_idx * len(data), len(train_loader.dataset)))
    print("====> Epoch: {} Average loss: {:.4f}".format(epoch, train_loss.value / len(train_loader.dataset)))
    train_loss.value = 0.0

def test(epoch):
    model.eval()
    test_loss = 0
    with torch.no_grad():
        for i, (data, _) in enumerate(test_loader):
            recon_batch, mu, logvar = model(data)
            test_loss += loss_function(recon_batch, data, mu, logvar).item()
            if i == 0:
                n = min(data.size(0), 8)
                save_image(torch.cat([data[:n], recon_batch[:n]]).cpu(), f"results/reconstruction_{epoch}.png")
    print("====> Test set loss: {:.4f}".format(test_loss / len(test_loader.dataset)))

if __name__ == "__main__":
    model = VAE().to(device)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    with trainerd.session() as session:
        session.track(model=model, optimizer=optimizer)
        train_loss = session.value("train_loss", 0.0)
        for epoch in session.epochs(10):
            train(epoch)
            test(epoch)
            with torch.no_grad():
                sample = torch.randn(64, 20).to(device)
                sample = model.decode(sample).cpu()
                save_image(sample.view(64, 1, 28, 28), f"results/sample_{epoch}.png")
"""

PORTS["siamese network"] = """
import torch, trainerd
import torch.optim as optim
with trainerd.session() as session:
    model = SiameseNetwork().to(device)
    optimizer = optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    session.track(model=model, optimizer=optimizer, scheduler=scheduler)
    for epoch in session.epochs(14):
        model.train()
        for batch_idx, (images_1, images_2, targets) in enumerate(session.batches(train_loader)):
            images_1, images_2, targets = images_1.to(device), images_2.to(device), targets.to(device)
            optimizer.zero_grad()
            outputs = model(images_1, images_2).squeeze()
            loss = criterion(outputs, targets)
            loss.backward()
            optimizer.step()
            if batch_idx % 10 == 0:
                done = 100.0 * batch_idx / len(train_loader)
                print(f"Train Epoch: {epoch} ({done:.0f}%) Loss: {loss.item():.6f}")
        correct = 0
        with torch.no_grad():
            for images_1, images_2, targets in test_loader:
                pred = torch.where(model(images_1, images_2).squeeze() > 0.5, 1, 0)
                correct += pred.eq(targets.view_as(pred)).sum().item()
        session.report(accuracy=correct / len(test_loader.dataset))
        scheduler.step()
"""

PORTS["time sequence prediction with LBFGS"] = """
import torch, trainerd
import torch.optim as optim
with trainerd.session() as session:
    seq = Sequence().double()
    criterion = torch.nn.MSELoss()
    optimizer = optim.LBFGS(seq.parameters(), lr=0.8)
    session.track(seq=seq, optimizer=optimizer)
    for i in session.steps(15):
        print("STEP: ", i)
        def closure():
            optimizer.zero_grad()
            out = seq(input)
            loss = criterion(out, target)
            print("loss:", loss.item())
            loss.backward()
            return loss
        optimizer.step(closure)
        with torch.no_grad():
            pred = seq(test_input, future=1000)
            loss = criterion(pred[:, :-1000], test_target)
            y = pred.detach().numpy()
        draw(y[0], i)
        session.log(loss=loss)
"""

PORTS["ImageNet"] = """
import time, torch, trainerd
from torch.optim.lr_scheduler import StepLR

class AverageMeter(object):
    def __init__(self, name, fmt=":f"):
        self.name = name
        self.reset()
    def reset(self):
        self.val = self.avg = self.sum = self.count = 0
    def update(self, val, n=1):
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = self.sum / self.count
    def state_dict(self):
        return {"val": self.val, "avg": self.avg, "sum": self.sum, "count": self.count}
    def load_state_dict(self, state):
        self.__dict__.update(state)

class ProgressMeter(object):
    def __init__(self, num_batches, meters):
        self.meters = meters
    def display(self, batch):
        print("\\t".join(str(meter) for meter in self.meters))

def train(session, train_loader, model, criterion, optimizer, losses, top1, args):
    batch_time = AverageMeter("Time", ":6.3f")
    data_time = AverageMeter("Data", ":6.3f")
    progress = ProgressMeter(len(train_loader), [batch_time, data_time, losses, top1])
    model.train()
    end = time.time()
    for i, (images, target) in enumerate(session.batches(train_loader)):
        data_time.update(time.time() - end)
        output = model(images)
        loss = criterion(output, target)
        acc1, acc5 = accuracy(output, target, topk=(1, 5))
        losses.update(loss.item(), images.size(0))
        top1.update(acc1[0].item(), images.size(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        batch_time.update(time.time() - end)
        end = time.time()
        if i % args.print_freq == 0:
            progress.display(i + 1)
    losses.reset()
    top1.reset()

def validate(val_loader, model, criterion, args):
    batch_time = AverageMeter("Time")
    top1 = AverageMeter("Acc@1")
    end = time.time()
    for i, (images, target) in enumerate(val_loader):
        top1.update(accuracy(model(images), target)[0], images.size(0))
        batch_time.update(time.time() - end)
        end = time.time()
    return top1.avg

def main_worker(gpu, args):
    model = torch.nn.parallel.DistributedDataParallel(create(args.arch), device_ids=[gpu])
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9)
    scheduler = StepLR(optimizer, step_size=30, gamma=0.1)
    losses, top1 = AverageMeter("Loss"), AverageMeter("Acc@1")
    with trainerd.session() as session:
        session.track(model=model, optimizer=optimizer, scheduler=scheduler, losses=losses, top1=top1)
        best_acc1 = session.value("best_acc1", 0.0)
        for epoch in session.epochs(args.epochs):
            train_sampler.set_epoch(epoch)
            train(session, train_loader, model, criterion, optimizer, losses, top1, args)
            acc1 = validate(val_loader, model, criterion, args)
            scheduler.step()
            is_best = acc1 > best_acc1.value
            best_acc1.value = max(acc1, best_acc1.value)
            if is_best:
                torch.save(model.state_dict(), "model_best.pth")
"""

PORTS["super resolution, fast neural style"] = """
import time, torch, trainerd
from torch.optim import Adam

def train(args):
    transformer = TransformerNet().to(args.device)
    optimizer = Adam(transformer.parameters(), args.lr)
    vgg = Vgg16(requires_grad=False).to(args.device)
    features_style = vgg(normalize_batch(style))
    gram_style = [gram_matrix(y) for y in features_style]
    with trainerd.session(every={"steps": 200}) as session:
        session.track(transformer=transformer, optimizer=optimizer)
        agg = session.variables(content=0.0, style=0.0, count=0)
        for e in session.epochs(args.epochs):
            transformer.train()
            for batch_id, (x, _) in session.enumerate(train_loader):
                n_batch = len(x)
                agg.count += n_batch
                optimizer.zero_grad()
                y = transformer(x)
                style_loss = 0.
                for ft_y, gm_s in zip(vgg(y), gram_style):
                    style_loss += mse_loss(gram_matrix(ft_y), gm_s[:n_batch, :, :])
                content_loss = mse_loss(vgg(y)[1], vgg(x)[1])
                (content_loss + style_loss).backward()
                optimizer.step()
                agg.content += content_loss.item()
                agg.style += style_loss.item()
                if (batch_id + 1) % args.log_interval == 0:
                    print(time.ctime(), agg.count, agg.content / (batch_id + 1), agg.style / (batch_id + 1))
                if (batch_id + 1) % args.checkpoint_interval == 0:
                    torch.save(transformer.state_dict(), f"ckpt_epoch_{e}_batch_{batch_id}.pth")
            agg.content = agg.style = 0.0
            agg.count = 0
    transformer.eval().cpu()
    torch.save(transformer.state_dict(), args.save_model_path)
"""

PORTS["nanoGPT"] = """
import math, os, time, torch, trainerd

model = GPT(gptconf)
scaler = torch.cuda.amp.GradScaler(enabled=(dtype == "float16"))
optimizer = model.configure_optimizers(weight_decay, learning_rate, (beta1, beta2), device_type)
raw_model = model
model = torch.compile(model)

@torch.no_grad()
def estimate_loss():
    out = {}
    model.eval()
    for split in ["train", "val"]:
        losses = torch.zeros(eval_iters)
        for k in range(eval_iters):
            X, Y = get_batch(split)
            losses[k] = model(X, Y)[1].item()
        out[split] = losses.mean()
    model.train()
    return out

with trainerd.session() as session:
    session.track(model=raw_model, optimizer=optimizer, scaler=scaler)
    best_val_loss = session.value("best_val_loss", 1e9)
    t0 = time.time()
    local_iter_num = 0
    running_mfu = -1.0
    for iter_num in session.steps(max_iters):
        lr = get_lr(iter_num) if decay_lr else learning_rate
        for param_group in optimizer.param_groups:
            param_group["lr"] = lr
        if iter_num % eval_interval == 0:
            losses = estimate_loss()
            print(f"step {iter_num}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}")
            if losses["val"] < best_val_loss.value:
                best_val_loss.value = losses["val"]
        for micro_step in range(gradient_accumulation_steps):
            X, Y = get_batch("train")
            with ctx:
                logits, loss = model(X, Y)
                loss = loss / gradient_accumulation_steps
            scaler.scale(loss).backward()
        if grad_clip != 0.0:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        t1 = time.time()
        dt = t1 - t0
        t0 = t1
        if iter_num % log_interval == 0 and master_process:
            lossf = loss.item() * gradient_accumulation_steps
            if local_iter_num >= 5:
                mfu = raw_model.estimate_mfu(batch_size * gradient_accumulation_steps, dt)
                running_mfu = mfu if running_mfu == -1.0 else 0.9 * running_mfu + 0.1 * mfu
            print(f"iter {iter_num}: loss {lossf:.4f}, time {dt*1000:.2f}ms, mfu {running_mfu*100:.2f}%")
        local_iter_num += 1
"""

PORTS["minGPT's trainer"] = """
import time, torch, trainerd
from collections import defaultdict

class Trainer:
    def __init__(self, config, model, train_dataset):
        self.config = config
        self.model = model
        self.optimizer = None
        self.callbacks = defaultdict(list)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = self.model.to(self.device)
        self.iter_time = 0.0
        self.iter_dt = 0.0

    def add_callback(self, onevent, callback):
        self.callbacks[onevent].append(callback)

    def trigger_callbacks(self, onevent):
        for callback in self.callbacks.get(onevent, []):
            callback(self)

    def run(self, session):
        model, config = self.model, self.config
        self.optimizer = model.configure_optimizers(config)
        session.track(model=model, optimizer=self.optimizer)
        model.train()
        self.iter_time = time.time()
        for epoch in session.epochs(None, max_steps=config.max_iters):
            for batch in session.batches(self.loader):
                batch = [t.to(self.device) for t in batch]
                x, y = batch
                logits, self.loss = model(x, y)
                model.zero_grad(set_to_none=True)
                self.loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_norm_clip)
                self.optimizer.step()
                self.trigger_callbacks("on_batch_end")
                tnow = time.time()
                self.iter_dt = tnow - self.iter_time
                self.iter_time = tnow
"""

PORTS["timm's update counters"] = """
import time, torch, trainerd
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3, AverageMeter

def train_one_epoch(session, epoch, model, loader, optimizer, loss_fn, args, lr_scheduler, model_ema):
    update_time_m = AverageMeter()
    data_time_m = AverageMeter()
    model.train()
    updates_per_epoch = (len(loader) + args.grad_accum_steps - 1) // args.grad_accum_steps
    data_start_time = update_start_time = time.time()
    optimizer.zero_grad()
    for batch_idx, (input, target) in session.enumerate(loader, accumulate=args.grad_accum_steps):
        update_idx = batch_idx // args.grad_accum_steps
        data_time_m.update(time.time() - data_start_time)
        loss = loss_fn(model(input), target) / args.grad_accum_steps
        loss.backward()
        if not session.ends_step:
            data_start_time = time.time()
            continue
        optimizer.step()
        num_updates = session.step + 1
        optimizer.zero_grad()
        model_ema.update(model, step=num_updates)
        time_now = time.time()
        update_time_m.update(time.time() - update_start_time)
        update_start_time = time_now
        if update_idx % args.log_interval == 0:
            lrl = [param_group["lr"] for param_group in optimizer.param_groups]
            lr = sum(lrl) / len(lrl)
            print(f"Train: {epoch} [{update_idx:>4d}/{updates_per_epoch}] LR: {lr:.3e} {update_time_m.avg:.3f}s")
        lr_scheduler.step_update(num_updates=num_updates)
        data_start_time = time.time()

def main():
    model = create_model()
    optimizer = create_optimizer_v2(model)
    model_ema = ModelEmaV3(model, decay=0.999)
    lr_scheduler, num_epochs = create_scheduler_v2(optimizer)
    with trainerd.session() as session:
        session.track(model=model, optimizer=optimizer, lr_scheduler=lr_scheduler, model_ema=model_ema)
        best = session.variables(metric=None, epoch=None)
        for epoch in session.epochs(num_epochs):
            train_one_epoch(session, epoch, model, loader, optimizer, loss, args, lr_scheduler, model_ema)
            metric = validate(model)
            if best.metric is None or metric > best.metric:
                best.metric, best.epoch = metric, epoch
            lr_scheduler.step(epoch + 1, metric)
        print(f"*** Best metric: {best.metric} (epoch {best.epoch})")
"""

PORTS["transfer learning by phases"] = """
import copy, time, torch, trainerd
from torch.optim import lr_scheduler

def train_model(session, model, criterion, optimizer, scheduler, num_epochs=25):
    since = time.time()
    best_path = session.run_dir / "best.pt"
    best_acc = session.value("best_acc", 0.0)
    running = session.variables(loss=0.0, corrects=0)
    for epoch in session.epochs(num_epochs):
        for phase in ["train", "val"]:
            model.train(phase == "train")
            for inputs, labels in session.batches(dataloaders[phase], train=phase == "train"):
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    outputs = model(inputs)
                    _, preds = torch.max(outputs, 1)
                    loss = criterion(outputs, labels)
                    if phase == "train":
                        loss.backward()
                        optimizer.step()
                running.loss += loss.item() * inputs.size(0)
                running.corrects += torch.sum(preds == labels.data).item()
            if phase == "train":
                scheduler.step()
            epoch_loss = running.loss / dataset_sizes[phase]
            epoch_acc = running.corrects / dataset_sizes[phase]
            running.loss, running.corrects = 0.0, 0
            print(f"{phase} Loss: {epoch_loss:.4f} Acc: {epoch_acc:.4f}")
            if phase == "val" and epoch_acc > best_acc.value:
                best_acc.value = epoch_acc
                torch.save(model.state_dict(), best_path)
    time_elapsed = time.time() - since
    print(f"Training complete in {time_elapsed // 60:.0f}m {time_elapsed % 60:.0f}s")
    print(f"Best val Acc: {best_acc.value:4f}")
    model.load_state_dict(torch.load(best_path))
    return model

model_ft = models.resnet18(weights="IMAGENET1K_V1")
model_ft.fc = torch.nn.Linear(model_ft.fc.in_features, 2)
optimizer_ft = torch.optim.SGD(model_ft.fc.parameters(), lr=0.001, momentum=0.9)
exp_lr_scheduler = lr_scheduler.StepLR(optimizer_ft, step_size=7, gamma=0.1)
with trainerd.session() as session:
    session.track(model=model_ft, optimizer=optimizer_ft, scheduler=exp_lr_scheduler)
    model_ft = train_model(session, model_ft, criterion, optimizer_ft, exp_lr_scheduler)
"""

PORTS["DDP tutorial's trainer"] = """
import torch, trainerd
from torch.nn.parallel import DistributedDataParallel as DDP

class Trainer:
    def __init__(self, model: torch.nn.Module, train_data, optimizer: torch.optim.Optimizer, gpu_id: int) -> None:
        self.gpu_id = gpu_id
        self.train_data = train_data
        self.optimizer = optimizer
        self.model = DDP(model.to(gpu_id), device_ids=[gpu_id])

    def _run_batch(self, source, targets):
        self.optimizer.zero_grad()
        output = self.model(source)
        self.loss = F.cross_entropy(output, targets)
        self.loss.backward()
        self.optimizer.step()

    def _run_epoch(self, run: trainerd.Session, epoch):
        b_sz = len(next(iter(self.train_data))[0])
        print(f"[GPU{self.gpu_id}] Epoch {epoch} | Batchsize: {b_sz} | Steps: {len(self.train_data)}")
        self.train_data.sampler.set_epoch(epoch)
        for source, targets in run.batches(self.train_data):
            self._run_batch(source.to(self.gpu_id), targets.to(self.gpu_id))
            run.log(loss=self.loss)

    def train(self, max_epochs: int):
        with trainerd.session() as run:
            run.track(model=self.model, optimizer=self.optimizer)
            for epoch in run.epochs(max_epochs):
                self._run_epoch(run, epoch)

def load_train_objs():
    train_set = MyTrainDataset(2048)
    model = torch.nn.Linear(20, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    return train_set, model, optimizer

def main(rank, world_size, total_epochs, batch_size):
    dataset, model, optimizer = load_train_objs()
    trainer = Trainer(model, prepare_dataloader(dataset, batch_size), optimizer, rank)
    trainer.train(total_epochs)
"""

PORTS["accelerate"] = """
import torch, trainerd
from accelerate import Accelerator
from transformers import get_linear_schedule_with_warmup, set_seed

def training_function(config, args):
    accelerator = Accelerator(gradient_accumulation_steps=4)
    metric = evaluate.load("glue", "mrpc")
    set_seed(config["seed"])
    base = AutoModelForSequenceClassification.from_pretrained("bert-base-cased")
    adamw = torch.optim.AdamW(params=base.parameters(), lr=config["lr"])
    schedule = get_linear_schedule_with_warmup(optimizer=adamw, num_warmup_steps=100)
    model, optimizer, train_dataloader, eval_dataloader, lr_scheduler = accelerator.prepare(
        base, adamw, train_dataloader, eval_dataloader, schedule)
    with trainerd.session() as session:
        session.track(model=accelerator.unwrap_model(model), optimizer=optimizer, lr_scheduler=lr_scheduler)
        for epoch in session.epochs(config["num_epochs"]):
            model.train()
            for step, batch in enumerate(session.batches(train_dataloader)):
                with accelerator.accumulate(model):
                    outputs = model(**batch)
                    loss = outputs.loss
                    accelerator.backward(loss)
                    optimizer.step()
                    lr_scheduler.step()
                    optimizer.zero_grad()
            model.eval()
            for step, batch in enumerate(eval_dataloader):
                with torch.no_grad():
                    outputs = model(**batch)
                predictions = outputs.logits.argmax(dim=-1)
                predictions, references = accelerator.gather_for_metrics((predictions, batch["labels"]))
                metric.add_batch(predictions=predictions, references=references)
            eval_metric = metric.compute()
            accelerator.print(f"epoch {epoch}:", eval_metric)
"""

PORTS["early stopping and an average by classes of the script"] = """
import copy, torch, trainerd

class EarlyStopping:
    def __init__(self, patience=7):
        self.patience = patience
        self.counter = 0
        self.best_score = None
        self.early_stop = False
    def __call__(self, val_loss):
        if self.best_score is None or -val_loss > self.best_score:
            self.best_score = -val_loss
            self.counter = 0
        else:
            self.counter += 1
            self.early_stop = self.counter >= self.patience
    def state_dict(self):
        return vars(self).copy()
    def load_state_dict(self, state):
        vars(self).update(state)

class EMA(torch.nn.Module):
    def __init__(self, model, decay):
        super().__init__()
        self.module = copy.deepcopy(model)
        self.decay = decay
        self.updates = 0
    def update(self, model):
        self.updates += 1
        with torch.no_grad():
            for ema_v, model_v in zip(self.module.state_dict().values(), model.state_dict().values()):
                ema_v.copy_(self.decay * ema_v + (1. - self.decay) * model_v)

def update_teacher(teacher, student, decay):
    for t, s in zip(teacher.parameters(), student.parameters()):
        t.data.mul_(decay).add_(s.data, alpha=1 - decay)

def main():
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    stopper = EarlyStopping(patience=5)
    ema = EMA(model, 0.999)
    teacher = copy.deepcopy(model)
    with trainerd.session() as session:
        session.track(model=model, optimizer=optimizer, stopper=stopper, ema=ema, teacher=teacher)
        for epoch in session.epochs(100):
            for x, y in session.batches(loader):
                loss = criterion(model(x), y) + distance(model, teacher)
                optimizer.zero_grad(); loss.backward(); optimizer.step()
                ema.update(model)
                update_teacher(teacher, model, 0.99)
            stopper(evaluate(ema.module))
            if stopper.early_stop:
                print("early stopping")
                break
"""

PORTS["mixed precision, warm-up by hand, tqdm as a context"] = """
import torch, trainerd
from tqdm.auto import tqdm, trange
with trainerd.session() as session:
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    scaler = torch.amp.GradScaler("cuda")
    session.track(model=model, optimizer=optimizer, scaler=scaler)
    bar = tqdm(total=10 * len(loader))
    for epoch in session.epochs(10):
        with tqdm(session.batches(loader), desc=f"epoch {epoch}") as pbar:
            for x, y in pbar:
                warm = min(1.0, (session.step + 1) / 500)
                for g in optimizer.param_groups:
                    g["lr"] = 1e-3 * warm
                with torch.autocast("cuda"):
                    loss = criterion(model(x), y)
                scaler.scale(loss).backward()
                scaler.unscale_(optimizer)
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                bar.update(1)
                pbar.set_postfix(loss=loss.item(), norm=norm.item())
                session.log(loss=loss, seconds=pbar.format_dict["elapsed"])
"""

PORTS["a state object, a dictionary of counts, and functions of the script"] = """
import torch, trainerd
from dataclasses import dataclass, asdict

@dataclass
class State:
    step: int = 0
    best: float = 0.0
    def state_dict(self):
        return asdict(self)
    def load_state_dict(self, state):
        self.__dict__.update(state)

def advance(state, stats, loss):
    state.step += 1
    stats["n"] += 1

def run(loader):
    state = State()
    with trainerd.session() as session, open("log.txt", "a") as log:
        stats = session.value("stats", {"n": 0, "skipped": 0}).value
        model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
        session.track(model=model, optimizer=optimizer, state=state)
        for epoch in session.epochs(3):
            for x in session.batches(loader):
                if (size := x.norm()) > 10:
                    stats["skipped"] += 1
                    continue
                loss = model(x).mean() / size
                optimizer.zero_grad(); loss.backward(); optimizer.step()
                advance(state, stats, loss)
                log.write(f"{loss.item()}\\n")
            if (score := evaluate(model)) > state.best:
                state.best = score
            session.report(score=score, skipped=stats["skipped"])
"""

PORTS["generator functions, map, and a comprehension that is thrown away"] = """
import collections, torch, trainerd

def examples(session, loader):
    for x in session.batches(loader):
        if x.sum() <= 0:
            continue
        yield x, x.sum()

def prefetched(iterable):
    stream = torch.cuda.Stream()
    for x in iterable:
        with torch.cuda.stream(stream):
            y = x.to("cuda", non_blocking=True)
        torch.cuda.current_stream().wait_stream(stream)
        yield y

with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    def train_step(x):
        loss = model(x).mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        session.log(loss=loss)
        return loss
    for epoch in session.epochs(3):
        for x, total in examples(session, loader):
            train_step(x / total)
        for x in prefetched(session.batches(loader)):
            train_step(x)
        collections.deque(map(train_step, session.batches(loader)), maxlen=0)
        for loss in map(train_step, session.batches(loader)):
            print(loss.item())
        losses = [model(x).mean().item() for x in session.batches(valid, train=False)]
        session.report(mean=sum(losses) / len(losses))
"""

PORTS["while loops"] = """
import itertools, torch, trainerd
with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    def train_step(x):
        loss = model(x).mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    while session.step < 1000:
        for x in session.batches(loader):
            train_step(x)
            if session.step + 1 >= 1000:
                break
    it = iter(session.batches(loader))
    while True:
        try:
            x = next(it)
        except StopIteration:
            it = iter(session.batches(loader))
            x = next(it)
        train_step(x)
        if session.step >= 2000:
            break
"""

PORTS["an asynchronous loop, an exit stack, try and finally"] = """
import contextlib, time, torch, trainerd

def opened(folder):
    return trainerd.session(folder, every={"seconds": 60})

async def main():
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(opened("run"))
        log = stack.enter_context(open("log.txt", "a"))
        model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
        run.track(model=model, optimizer=optimizer)
        last = time.monotonic()
        try:
            async for x in ahead(run.batches(loader)):
                loss = model(x).mean()
                optimizer.zero_grad(); loss.backward(); optimizer.step()
                now = time.monotonic()
                if now - last > 60:
                    print(f"{loss.item():.3f}", file=log)
                    last = now
                if time.monotonic() - last > 600:
                    run.checkpoint_now()
        except RuntimeError as error:
            print("failed", error)
            raise
        finally:
            log.flush()
"""

PORTS["a queue and a window that are tracked, filled through functions"] = """
from trainerd import *
from collections import deque
import torch

class Window:
    def __init__(self, length):
        self.values = deque(maxlen=length)
    def add(self, value):
        self.values.append(value)
    def mean(self):
        return sum(self.values) / len(self.values)
    def state_dict(self):
        return {"values": list(self.values)}
    def load_state_dict(self, state):
        self.values.extend(state["values"])

class Fit:
    def __init__(self, run):
        self.run = run
        self.window = Window(100)
        self.model = build()
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1)
        run.track(model=self.model, optimizer=self.optimizer, window=self.window)
        self.scores = run.value("scores", [])
    def epoch(self):
        for x in self.run.batches(loader):
            self.remember(self.train_step(x))
        self.scores.value.append(self.window.mean())
    def train_step(self, x):
        loss = self.model(x).mean()
        self.optimizer.zero_grad(); loss.backward(); self.optimizer.step()
        return loss.item()
    def remember(self, loss):
        self.window.add(loss)

def main():
    with session() as run:
        fit = Fit(run)
        for epoch in run.epochs(3):
            fit.epoch()
        draw(fit.scores.value)
"""

PORTS["a Checkpointer alone"] = """
import time, torch, trainerd

class Best:
    def __init__(self):
        self.score = 0.0
    def note(self, score):
        self.score = max(self.score, score)
    def state_dict(self):
        return {"score": self.score}
    def load_state_dict(self, state):
        self.score = state["score"]

model = build()
optimizer = torch.optim.SGD(model.parameters(), 0.1)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10)
best = Best()
objects = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "best": best}
with trainerd.Checkpointer("checkpoints", objects, keep_last=2) as checkpointer:
    checkpoint = checkpointer.resume()
    step = checkpoint.manifest.step if checkpoint else 0
    start = checkpoint.manifest.epoch if checkpoint else 0
    for epoch in range(start, 10):
        began = time.time()
        total = 0.0
        for x in loader:
            loss = model(x).mean()
            optimizer.zero_grad(); loss.backward(); optimizer.step()
            total += loss.item()
            step += 1
        scheduler.step()
        best.note(total)
        print(f"epoch {epoch}: {total / len(loader):.3f} in {time.time() - began:.1f} s")
        checkpointer.save(step=step, epoch=epoch + 1, scores={"total": total})
"""

PORTS["pre-training and fine-tuning, with a learning rate by hand and a curriculum"] = """
import random, torch, trainerd
import numpy as np

def seed_worker(worker_id):
    seed = torch.initial_seed() % 2**32
    np.random.seed(seed)
    random.seed(seed)

with trainerd.session(seed=1) as session:
    encoder, head = Encoder(), torch.nn.Linear(8, 2)
    optimizer = torch.optim.SGD(
        [{"params": encoder.parameters(), "lr": 0.01}, {"params": head.parameters()}], lr=0.1)
    session.track(encoder=encoder, head=head, optimizer=optimizer)
    for epoch in session.epochs(9):
        frozen = epoch < 3
        for p in encoder.parameters():
            p.requires_grad = not frozen
        rate = 0.1 * 0.5 ** (epoch // 3)
        for group in optimizer.param_groups:
            group["lr"] = rate
        difficulty = min(1.0, epoch / 5)
        batches = session.batches(unlabelled if frozen else labelled)
        for x, y in batches:
            mixed = random.random() < difficulty
            lam = np.random.beta(0.2, 0.2) if mixed else 1.0
            index = torch.randperm(x.size(0))
            x = lam * x + (1 - lam) * x[index]
            out = head(encoder(x))
            loss = lam * criterion(out, y) + (1 - lam) * criterion(out, y[index])
            optimizer.zero_grad(); loss.backward(); optimizer.step()
            grads = {}
            for name, p in head.named_parameters():
                grads[name] = p.grad.norm().item()
            session.log(loss=loss, worst=max(grads.values()))
            del x, y, out
        scores = []
        for x, y in session.batches(valid, train=False):
            scores.append((head(encoder(x)).argmax(1) == y).float().mean().item())
        session.report(accuracy=sum(scores) / len(scores))
"""
