"""Ports of public training scripts that forget something. ``#! RULE NAME`` marks each line with a finding."""

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
        if batch_idx % args.log_interval == 0:  #! enumerate-count batch_idx
            print(f"Train Epoch: {epoch} [{batch_idx * len(data)}/{len(train_loader.dataset)}]")
            if args.dry_run:
                break

def main():
    args = parse()
    model = Net().to(args.device)
    optimizer = optim.Adadelta(model.parameters(), lr=args.lr)
    scheduler = StepLR(optimizer, step_size=1, gamma=args.gamma)  #! untracked-object scheduler
    with trainerd.session() as session:
        session.track(model=model, optimizer=optimizer)
        for epoch in session.epochs(args.epochs):
            train(args, model, args.device, train_loader, optimizer, epoch, session)
            test(model, args.device, test_loader)
            scheduler.step()

if __name__ == "__main__":
    main()
"""

PORTS["DCGAN"] = """
import torch, trainerd
import torch.optim as optim
import torchvision.utils as vutils
netG, netD = Generator(), Discriminator()
fixed_noise = torch.randn(64, 100, 1, 1)
optimizerD = optim.Adam(netD.parameters(), lr=2e-4, betas=(0.5, 0.999))
optimizerG = optim.Adam(netG.parameters(), lr=2e-4, betas=(0.5, 0.999))
img_list = []
G_losses = []
D_losses = []
iters = 0
with trainerd.session() as session:
    session.track(netG=netG, netD=netD, optimizerD=optimizerD, optimizerG=optimizerG)
    for epoch in session.epochs(5):
        for i, data in enumerate(session.batches(dataloader), 0):
            errD, errG = step(netG, netD, optimizerG, optimizerD, data)
            if i % 50 == 0:
                print("[%d/%d] Loss_D: %.4f" % (i, len(dataloader), errD.item()))
            G_losses.append(errG.item())  #! carried-variable G_losses
            D_losses.append(errD.item())  #! carried-variable D_losses
            if (iters % 500 == 0) or (epoch == 4 and i == len(dataloader) - 1):  #! carried-variable iters enumerate-count i
                with torch.no_grad():
                    fake = netG(fixed_noise).detach().cpu()
                img_list.append(vutils.make_grid(fake))  #! carried-variable img_list
            iters += 1
plot(G_losses, D_losses, img_list)
"""

PORTS["word language model"] = """
import math, time, torch, trainerd

def repackage_hidden(h):
    if isinstance(h, torch.Tensor):
        return h.detach()
    return tuple(repackage_hidden(v) for v in h)

def train(session, epoch):
    model.train()
    total_loss = 0.
    start_time = time.time()
    hidden = model.init_hidden(args.batch_size)
    for batch, i in enumerate(session.batches(range(0, train_data.size(0) - 1, args.bptt))):
        data, targets = get_batch(train_data, i)
        model.zero_grad()
        hidden = repackage_hidden(hidden)  #! carried-variable hidden
        output, hidden = model(data, hidden)
        loss = criterion(output, targets)
        loss.backward()
        for p in model.parameters():
            p.data.add_(p.grad, alpha=-lr)
        total_loss += loss.item()  #! carried-variable total_loss
        if batch % args.log_interval == 0 and batch > 0:
            cur_loss = total_loss / args.log_interval
            elapsed = time.time() - start_time
            print("| ms/batch {:5.2f} | loss {:5.2f}".format(elapsed * 1000, cur_loss))
            total_loss = 0
            start_time = time.time()

lr = args.lr
best_val_loss = None
with trainerd.session() as session:
    session.track(model=model)
    for epoch in session.epochs(args.epochs):
        train(session, epoch)
        val_loss = evaluate(val_data)
        if not best_val_loss or val_loss < best_val_loss:  #! carried-variable best_val_loss
            torch.save(model, args.save)
            best_val_loss = val_loss
        else:
            lr /= 4.0  #! carried-variable lr
"""

PORTS["seq2seq translation"] = """
import time, random, torch, trainerd
import torch.optim as optim

def train_epoch(session, dataloader, encoder, decoder, encoder_optimizer, decoder_optimizer, criterion):
    total_loss = 0
    for data in session.batches(dataloader):
        input_tensor, target_tensor = data
        encoder_optimizer.zero_grad()
        decoder_optimizer.zero_grad()
        encoder_outputs, encoder_hidden = encoder(input_tensor)
        decoder_outputs, _, _ = decoder(encoder_outputs, encoder_hidden, target_tensor)
        loss = criterion(decoder_outputs.view(-1), target_tensor.view(-1))
        loss.backward()
        encoder_optimizer.step()
        decoder_optimizer.step()
        total_loss += loss.item()  #! carried-variable total_loss
    return total_loss / len(dataloader)

def train(session, train_dataloader, encoder, decoder, n_epochs, print_every=100, plot_every=100):
    start = time.time()
    plot_losses = []
    print_loss_total = 0
    plot_loss_total = 0
    encoder_optimizer = optim.Adam(encoder.parameters(), lr=0.001)
    decoder_optimizer = optim.Adam(decoder.parameters(), lr=0.001)  #! untracked-object decoder_optimizer
    session.track(encoder=encoder, decoder=decoder, encoder_optimizer=encoder_optimizer)
    for epoch in session.epochs(n_epochs):
        loss = train_epoch(session, train_dataloader, encoder, decoder, encoder_optimizer, decoder_optimizer, None)
        print_loss_total += loss  #! carried-variable print_loss_total
        plot_loss_total += loss  #! carried-variable plot_loss_total
        if epoch % print_every == 0:
            print_loss_avg = print_loss_total / print_every
            print_loss_total = 0
            print("%s %.4f" % (timeSince(start, epoch / n_epochs), print_loss_avg))
        if epoch % plot_every == 0:
            plot_losses.append(plot_loss_total / plot_every)  #! carried-variable plot_losses
            plot_loss_total = 0
    showPlot(plot_losses)

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
    def __len__(self):
        return len(self.memory)

policy_net = DQN()
target_net = DQN()  #! untracked-object target_net
target_net.load_state_dict(policy_net.state_dict())
optimizer = torch.optim.AdamW(policy_net.parameters(), lr=1e-4, amsgrad=True)
memory = ReplayMemory(10000)
steps_done = 0
episode_durations = []

def select_action(state):
    global steps_done
    eps = 0.05 + 0.85 * math.exp(-1. * steps_done / 1000)  #! carried-variable steps_done
    steps_done += 1
    return policy_net(state) if random.random() > eps else env.sample()

with trainerd.session() as session:
    session.track(policy_net=policy_net, optimizer=optimizer)
    for i_episode in session.steps(600):
        state, info = env.reset()
        done = False
        t = 0
        while not done:
            action = select_action(state)
            next_state, reward, done = env.step(action)
            memory.push(state, action, next_state, reward)  #! carried-variable memory
            state = next_state
            optimize_model(memory)
            t += 1
            target = target_net.state_dict()
            policy = policy_net.state_dict()
            for key in policy:
                target[key] = policy[key] * 0.005 + target[key] * 0.995
            target_net.load_state_dict(target)
        episode_durations.append(t + 1)  #! carried-variable episode_durations
    plot_durations(episode_durations)
"""

PORTS["VAE"] = """
import torch, trainerd
from torch import optim

def train(epoch):
    model.train()
    train_loss = 0
    for batch_idx, (data, _) in enumerate(session.batches(train_loader)):
        data = data.to(device)
        optimizer.zero_grad()
        recon_batch, mu, logvar = model(data)
        loss = loss_function(recon_batch, data, mu, logvar)
        loss.backward()
        train_loss += loss.item()  #! carried-variable train_loss
        optimizer.step()
        if batch_idx % 10 == 0:
            print("Train Epoch: {} [{}/{}]".format(epoch, batch_idx * len(data), len(train_loader.dataset)))
    print("====> Epoch: {} Average loss: {:.4f}".format(epoch, train_loss / len(train_loader.dataset)))

if __name__ == "__main__":
    model = VAE().to(device)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    with trainerd.session() as session:
        session.track(model=model, optimizer=optimizer)
        for epoch in session.epochs(10):
            train(epoch)
            test(epoch)
            with torch.no_grad():
                sample = model.decode(torch.randn(64, 20)).cpu()
    save_image(sample, f"results/sample_{epoch}.png")  #! read-after-loop sample epoch
"""

PORTS["siamese network"] = """
import torch, trainerd
import torch.optim as optim
with trainerd.session() as session:
    model = SiameseNetwork().to(device)
    optimizer = optim.Adadelta(model.parameters(), lr=1.0)
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    session.track(model=model, optimizer=optimizer, scheduler=scheduler)
    correct = 0
    for epoch in session.epochs(14):
        for images_1, images_2, targets in session.batches(train_loader):
            outputs = model(images_1, images_2).squeeze()
            loss = criterion(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            pred = torch.where(outputs > 0.5, 1, 0)
            correct = correct + pred.eq(targets.view_as(pred)).sum().item()  #! carried-variable correct
        scheduler.step()
    print(correct)
"""

PORTS["time sequence prediction with LBFGS"] = """
import torch, trainerd
import torch.optim as optim
with trainerd.session() as session:
    seq = Sequence().double()
    criterion = torch.nn.MSELoss()
    optimizer = optim.LBFGS(seq.parameters(), lr=0.8)  #! untracked-object optimizer
    session.track(seq=seq)
    evaluations = 0
    for i in session.steps(15):
        def closure():
            nonlocal_evaluations()
            optimizer.zero_grad()
            out = seq(input)
            loss = criterion(out, target)
            loss.backward()
            return loss
        loss = optimizer.step(closure)
        evaluations += closure_calls()  #! carried-variable evaluations
        draw(i, evaluations)
    torch.save(seq, f"seq_{loss.item()}.pt")  #! read-after-loop loss
"""

PORTS["super resolution"] = """
import torch, trainerd

def train(session, epoch):
    epoch_loss = 0
    for iteration, batch in enumerate(session.batches(training_data_loader), 1):
        input, target = batch[0].to(device), batch[1].to(device)
        optimizer.zero_grad()
        loss = criterion(model(input), target)
        epoch_loss += loss.item()  #! carried-variable epoch_loss
        loss.backward()
        optimizer.step()
        print("===> Epoch[{}]({}/{})".format(epoch, iteration, len(training_data_loader)))
    print("===> Epoch {} Complete: Avg. Loss: {:.4f}".format(epoch, epoch_loss / iteration))  #! read-after-loop iteration

model = Net(4)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
with trainerd.session(every={"epochs": 1}) as session:
    session.track(model=model, optimizer=optimizer)
    for epoch in session.epochs(30):
        train(session, epoch)
        checkpoint(epoch)
"""

PORTS["ImageNet"] = """
import time, torch, trainerd
from enum import Enum
from torch.optim.lr_scheduler import StepLR

best_acc1 = 0

class AverageMeter(object):
    def __init__(self, name, fmt=":f"):
        self.name = name
        self.reset()
    def reset(self):
        self.val = 0
        self.avg = 0
        self.sum = 0
        self.count = 0
    def update(self, val, n=1):
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = self.sum / self.count

class ProgressMeter(object):
    def __init__(self, num_batches, meters):
        self.meters = meters
    def display(self, batch):
        print("\\t".join(str(meter) for meter in self.meters))

def train(session, train_loader, model, criterion, optimizer, epoch, device, args):
    batch_time = AverageMeter("Time", ":6.3f")
    data_time = AverageMeter("Data", ":6.3f")
    losses = AverageMeter("Loss", ":.4e")
    top1 = AverageMeter("Acc@1", ":6.2f")
    progress = ProgressMeter(len(train_loader), [batch_time, data_time, losses, top1])
    model.train()
    end = time.time()
    for i, (images, target) in enumerate(session.batches(train_loader)):
        data_time.update(time.time() - end)
        output = model(images)
        loss = criterion(output, target)
        acc1, acc5 = accuracy(output, target, topk=(1, 5))
        losses.update(loss.item(), images.size(0))  #! carried-variable losses
        top1.update(acc1[0], images.size(0))  #! carried-variable top1
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        batch_time.update(time.time() - end)
        end = time.time()
        if i % args.print_freq == 0:
            progress.display(i + 1)

def main_worker(gpu, args):
    global best_acc1
    model = torch.nn.parallel.DistributedDataParallel(create(args.arch), device_ids=[gpu])
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9)
    scheduler = StepLR(optimizer, step_size=30, gamma=0.1)
    with trainerd.session() as session:
        session.track(model=model, optimizer=optimizer, scheduler=scheduler)
        for epoch in session.epochs(args.epochs):
            train_sampler.set_epoch(epoch)
            train(session, train_loader, model, criterion, optimizer, epoch, gpu, args)
            acc1 = validate(val_loader, model, criterion, args)
            scheduler.step()
            is_best = acc1 > best_acc1  #! carried-variable best_acc1
            best_acc1 = max(acc1, best_acc1)
            if is_best:
                torch.save(model.state_dict(), "model_best.pth")
"""

PORTS["fast neural style"] = """
import time, torch, trainerd
from torch.optim import Adam

def train(args):
    transformer = TransformerNet().to(args.device)
    optimizer = Adam(transformer.parameters(), args.lr)
    vgg = Vgg16(requires_grad=False).to(args.device)
    with trainerd.session() as session:
        session.track(transformer=transformer, optimizer=optimizer)
        for e in session.epochs(args.epochs):
            transformer.train()
            agg_content_loss = 0.
            agg_style_loss = 0.
            count = 0
            for batch_id, (x, _) in enumerate(session.batches(train_loader)):
                n_batch = len(x)
                count += n_batch  #! carried-variable count
                optimizer.zero_grad()
                y = transformer(x)
                content_loss, style_loss = losses(vgg, x, y)
                (content_loss + style_loss).backward()
                optimizer.step()
                agg_content_loss += content_loss.item()  #! carried-variable agg_content_loss
                agg_style_loss += style_loss.item()  #! carried-variable agg_style_loss
                if (batch_id + 1) % args.log_interval == 0:
                    mesg = "{} [{}/{}] content: {:.6f} style: {:.6f}".format(
                        time.ctime(), count, len(train_dataset), agg_content_loss / (batch_id + 1),
                        agg_style_loss / (batch_id + 1))
                    print(mesg)
                if args.checkpoint_model_dir is not None and (batch_id + 1) % args.checkpoint_interval == 0:  #! enumerate-count batch_id
                    torch.save(transformer.state_dict(), "ckpt.pth")
"""

PORTS["nanoGPT"] = """
import math, os, time, torch, trainerd

iter_num = 0
best_val_loss = 1e9
model = GPT(gptconf)
scaler = torch.cuda.amp.GradScaler(enabled=(dtype == "float16"))  #! untracked-object scaler
optimizer = model.configure_optimizers(weight_decay, learning_rate, (beta1, beta2), device_type)

with trainerd.session() as session:
    session.track(model=model, optimizer=optimizer)
    X, Y = get_batch("train")
    t0 = time.time()
    local_iter_num = 0
    running_mfu = -1.0
    for _ in session.steps(max_iters):
        lr = get_lr(iter_num) if decay_lr else learning_rate  #! carried-variable iter_num
        for param_group in optimizer.param_groups:
            param_group["lr"] = lr
        if iter_num % eval_interval == 0:
            losses = estimate_loss()
            if losses["val"] < best_val_loss:  #! carried-variable best_val_loss
                best_val_loss = losses["val"]
        for micro_step in range(gradient_accumulation_steps):
            with ctx:
                logits, loss = model(X, Y)  #! carried-variable X Y
                loss = loss / gradient_accumulation_steps
            X, Y = get_batch("train")
            scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        t1 = time.time()
        dt = t1 - t0
        t0 = t1
        if iter_num % log_interval == 0:
            lossf = loss.item() * gradient_accumulation_steps
            if local_iter_num >= 5:
                mfu = model.estimate_mfu(batch_size, dt)
                running_mfu = mfu if running_mfu == -1.0 else 0.9 * running_mfu + 0.1 * mfu
            print(f"iter {iter_num}: loss {lossf:.4f}, time {dt*1000:.2f}ms, mfu {running_mfu*100:.2f}%")
        iter_num += 1
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
        self.iter_num = 0
        self.iter_time = 0.0
        self.iter_dt = 0.0

    def run(self, session):
        model, config = self.model, self.config
        self.optimizer = model.configure_optimizers(config)
        session.track(model=model, optimizer=self.optimizer)
        self.iter_time = time.time()
        for batch in session.batches(self.loader):
            x, y = [t.to(self.device) for t in batch]
            logits, self.loss = model(x, y)
            model.zero_grad(set_to_none=True)
            self.loss.backward()
            self.optimizer.step()
            self.iter_num += 1  #! carried-variable self.iter_num
            tnow = time.time()
            self.iter_dt = tnow - self.iter_time
            self.iter_time = tnow
            if config.max_iters is not None and self.iter_num >= config.max_iters:
                break
"""

PORTS["timm's update counters"] = """
import time, torch, trainerd
from contextlib import suppress
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3, AverageMeter

def train_one_epoch(session, epoch, model, loader, optimizer, loss_fn, args, lr_scheduler, model_ema):
    losses_m = AverageMeter()
    update_time_m = AverageMeter()
    model.train()
    accum_steps = args.grad_accum_steps
    num_updates = epoch * (len(loader) // accum_steps)
    update_start_time = time.time()
    update_sample_count = 0
    for batch_idx, (input, target) in enumerate(session.batches(loader)):
        last_batch = batch_idx == len(loader) - 1  #! enumerate-count batch_idx
        need_update = last_batch or (batch_idx + 1) % accum_steps == 0
        loss = loss_fn(model(input), target) / accum_steps
        loss.backward()
        losses_m.update(loss.item() * accum_steps, input.size(0))  #! carried-variable losses_m
        update_sample_count += input.size(0)  #! carried-variable update_sample_count
        if not need_update:
            continue
        optimizer.step()
        num_updates += 1  #! carried-variable num_updates
        optimizer.zero_grad()
        model_ema.update(model, step=num_updates)
        time_now = time.time()
        update_time_m.update(time.time() - update_start_time)
        update_start_time = time_now
        lr_scheduler.step_update(num_updates=num_updates, metric=losses_m.avg)
        update_sample_count = 0

def main():
    model = create_model()
    optimizer = create_optimizer_v2(model)
    model_ema = ModelEmaV3(model, decay=0.999)  #! untracked-object model_ema
    lr_scheduler, num_epochs = create_scheduler_v2(optimizer)
    best_metric = None
    best_epoch = None
    with trainerd.session() as session:
        session.track(model=model, optimizer=optimizer, lr_scheduler=lr_scheduler)
        for epoch in session.epochs(num_epochs):
            train_one_epoch(session, epoch, model, loader, optimizer, loss, args, lr_scheduler, model_ema)
            metric = validate(model)
            if best_metric is None or metric > best_metric:  #! carried-variable best_metric
                best_metric, best_epoch = metric, epoch
        print(f"*** Best metric: {best_metric} (epoch {best_epoch})")  #! read-after-loop best_epoch
"""

PORTS["transfer learning by phases"] = """
import copy, time, torch, trainerd
from torch.optim import lr_scheduler

def train_model(session, model, criterion, optimizer, scheduler, num_epochs=25):
    since = time.time()
    best_model_wts = copy.deepcopy(model.state_dict())
    best_acc = 0.0
    for epoch in session.epochs(num_epochs):
        print(f"Epoch {epoch}/{num_epochs - 1}")
        for phase in ["train", "val"]:
            if phase == "train":
                model.train()
            else:
                model.eval()
            running_loss = 0.0
            running_corrects = 0
            for inputs, labels in session.batches(dataloaders[phase], train=phase == "train"):
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    outputs = model(inputs)
                    _, preds = torch.max(outputs, 1)
                    loss = criterion(outputs, labels)
                    if phase == "train":
                        loss.backward()
                        optimizer.step()
                running_loss += loss.item() * inputs.size(0)  #! carried-variable running_loss
                running_corrects += torch.sum(preds == labels.data)  #! carried-variable running_corrects
            if phase == "train":
                scheduler.step()
            epoch_loss = running_loss / dataset_sizes[phase]
            epoch_acc = running_corrects.double() / dataset_sizes[phase]
            print(f"{phase} Loss: {epoch_loss:.4f} Acc: {epoch_acc:.4f}")
            if phase == "val" and epoch_acc > best_acc:  #! carried-variable best_acc
                best_acc = epoch_acc
                best_model_wts = copy.deepcopy(model.state_dict())
    time_elapsed = time.time() - since
    print(f"Training complete in {time_elapsed // 60:.0f}m {time_elapsed % 60:.0f}s")
    print(f"Best val Acc: {best_acc:4f}")
    model.load_state_dict(best_model_wts)  #! read-after-loop best_model_wts
    return model

model_ft = models.resnet18(weights="IMAGENET1K_V1")
optimizer_ft = torch.optim.SGD(model_ft.parameters(), lr=0.001, momentum=0.9)
exp_lr_scheduler = lr_scheduler.StepLR(optimizer_ft, step_size=7, gamma=0.1)
with trainerd.session() as session:
    session.track(model=model_ft, optimizer=optimizer_ft, scheduler=exp_lr_scheduler)
    model_ft = train_model(session, model_ft, criterion, optimizer_ft, exp_lr_scheduler)
"""

PORTS["DDP tutorial's trainer"] = """
import torch, trainerd
from torch.nn.parallel import DistributedDataParallel as DDP

class Trainer:
    def __init__(self, model, train_data, optimizer, gpu_id):
        self.gpu_id = gpu_id
        self.model = DDP(model.to(gpu_id), device_ids=[gpu_id])
        self.train_data = train_data
        self.optimizer = optimizer
        self.samples = 0

    def _run_batch(self, source, targets):
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(source), targets)
        loss.backward()
        self.optimizer.step()
        self.samples += len(source)  #! carried-variable self.samples

    def _run_epoch(self, session, epoch):
        self.train_data.sampler.set_epoch(epoch)
        for source, targets in session.batches(self.train_data):
            self._run_batch(source.to(self.gpu_id), targets.to(self.gpu_id))
        session.report(samples=self.samples)

    def train(self, max_epochs):
        with trainerd.session() as session:
            session.track(model=self.model)
            for epoch in session.epochs(max_epochs):
                self._run_epoch(session, epoch)

def main(rank, world_size):
    model = torch.nn.Linear(20, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)  #! untracked-object optimizer
    trainer = Trainer(model, prepare_dataloader(), optimizer, rank)
    trainer.train(10)
"""

PORTS["accelerate"] = """
import torch, trainerd
from accelerate import Accelerator
from transformers import get_linear_schedule_with_warmup, set_seed

def training_function(config, args):
    accelerator = Accelerator()
    model = build()
    optimizer = torch.optim.AdamW(params=model.parameters(), lr=config["lr"])
    lr_scheduler = get_linear_schedule_with_warmup(optimizer=optimizer, num_warmup_steps=100)
    model, optimizer, train_dataloader, lr_scheduler = accelerator.prepare(
        model, optimizer, train_dataloader, lr_scheduler)
    with trainerd.session() as session:
        session.track(model=model, optimizer=optimizer, lr_scheduler=lr_scheduler)
        overall_step = 0
        for epoch in session.epochs(config["num_epochs"]):
            model.train()
            total_loss = 0
            for step, batch in enumerate(session.batches(train_dataloader)):
                outputs = model(**batch)
                loss = outputs.loss / gradient_accumulation_steps
                total_loss += loss.detach().float()  #! carried-variable total_loss
                accelerator.backward(loss)
                if step % gradient_accumulation_steps == 0:  #! enumerate-count step
                    optimizer.step()
                    lr_scheduler.step()
                    optimizer.zero_grad()
                overall_step += 1  #! carried-variable overall_step
                if overall_step % 500 == 0:
                    accelerator.save_state(f"step_{overall_step}")
            accelerator.log({"train_loss": total_loss.item() / len(train_dataloader)})
"""

PORTS["early stopping and an average by classes of the script"] = """
import copy, torch, trainerd

class EarlyStopping:
    def __init__(self, patience=7, delta=0):
        self.patience = patience
        self.counter = 0
        self.best_score = None
        self.early_stop = False
    def __call__(self, val_loss, model):
        score = -val_loss
        if self.best_score is None:
            self.best_score = score
        elif score < self.best_score:
            self.counter += 1
            if self.counter >= self.patience:
                self.early_stop = True
        else:
            self.best_score = score
            self.counter = 0

class WeightAverage:
    def __init__(self, model, decay):
        self.decay = decay
        self.shadow = {name: p.clone() for name, p in model.named_parameters()}
    def update(self, model):
        for name, p in model.named_parameters():
            self.shadow[name] = self.decay * self.shadow[name] + (1 - self.decay) * p.data

def main():
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    stopper = EarlyStopping(patience=5)  #! untracked-object stopper
    average = WeightAverage(model, 0.999)  #! untracked-object average
    ema_model = copy.deepcopy(model)  #! untracked-object ema_model
    with trainerd.session() as session:
        session.track(model=model, optimizer=optimizer)
        for epoch in session.epochs(100):
            for x, y in session.batches(loader):
                loss = criterion(model(x), y)
                optimizer.zero_grad(); loss.backward(); optimizer.step()
                average.update(model)
                with torch.no_grad():
                    for ema_p, p in zip(ema_model.parameters(), model.parameters()):
                        ema_p.mul_(0.99).add_(p, alpha=0.01)
            stopper(evaluate(ema_model), model)
            if stopper.early_stop:
                break
"""

PORTS["mixed precision, warm-up by hand, tqdm as a context"] = """
import torch, trainerd
from tqdm.auto import tqdm
with trainerd.session() as session:
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    scaler = torch.amp.GradScaler("cuda")
    session.track(model=model, optimizer=optimizer, scaler=scaler)
    step = 0
    for epoch in session.epochs(10):
        with tqdm(session.batches(loader), desc=f"epoch {epoch}") as pbar:
            for x, y in pbar:
                if step < 500:  #! carried-variable step
                    for g in optimizer.param_groups:
                        g["lr"] = 1e-3 * step / 500
                with torch.autocast("cuda"):
                    loss = criterion(model(x), y)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                step += 1
                pbar.set_postfix(loss=loss.item())
"""

PORTS["a state object, a dictionary of counts, nonlocal, and a walrus"] = """
import torch, trainerd
from dataclasses import dataclass
from types import SimpleNamespace

@dataclass
class State:
    step: int = 0
    best: float = 0.0

def run(loader):
    state = State()
    flags = SimpleNamespace(warm=False)
    stats = {"n": 0, "skipped": 0}
    running = 0.0
    def note(loss):
        nonlocal running
        running = 0.9 * running + 0.1 * loss  #! carried-variable running
    with trainerd.session() as session, open("log.txt", "a") as log:
        model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
        session.track(model=model, optimizer=optimizer)
        for epoch in session.epochs(3):
            for x in session.batches(loader):
                if (size := x.norm()) > 10:
                    stats["skipped"] += 1  #! carried-variable stats
                    continue
                loss = model(x).mean() / size
                optimizer.zero_grad(); loss.backward(); optimizer.step()
                note(loss.item())
                state.step += 1  #! carried-variable state.step
                if not flags.warm:  #! carried-variable flags.warm
                    flags.warm = warm_up(model)
            if (score := evaluate(model)) > state.best:  #! carried-variable state.best
                state.best = score
            session.report(score=score, skipped=stats["skipped"], running=running)
"""

PORTS["a generator function, islice, and a comprehension"] = """
import itertools, torch, trainerd

def examples(session, loader):
    kept = 0
    for x in session.batches(loader):
        if x.sum() > 0:
            kept += 1  #! carried-variable kept
            yield x, kept

with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    for epoch in session.epochs(3):
        for x in itertools.islice(session.batches(loader), 100):  #! enumerate-count itertools.islice
            train_step(x)
        seen = 0
        for x, kept in examples(session, loader):
            train_step(x)
            seen += len(x)  #! carried-variable seen
        losses = [train_step(x).item() for x in session.batches(loader)]  #! gathered-over-loop losses
        session.report(mean=sum(losses) / len(losses), seen=seen)
"""

PORTS["a while loop with a count of its own"] = """
import itertools, torch, trainerd
with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    done = 0
    while done < 1000:
        for x in session.batches(loader):
            train_step(x)
            done += 1  #! carried-variable done
            if done >= 1000:
                break
"""

PORTS["a plain range of epochs"] = """
import torch, trainerd
with trainerd.session() as session:
    model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
    session.track(model=model, optimizer=optimizer)
    best = 0.0
    for epoch in range(10):
        for x in session.batches(loader):
            train_step(x)
        accuracy = evaluate(model)
        if accuracy > best:  #! carried-variable best
            best = accuracy
            torch.save(model.state_dict(), "best.pt")
"""

PORTS["an asynchronous loop, an exit stack, try and finally"] = """
import contextlib, time, torch, trainerd

def opened():
    return trainerd.session("run")

async def main():
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(opened())
        model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
        run.track(model=model, optimizer=optimizer)
        count = 0
        deadline = time.monotonic() + 3600
        try:
            async for x in ahead(run.batches(loader)):
                train_step(x)
                count += len(x)  #! carried-variable count
                remaining = deadline - time.monotonic()
                if remaining < 60:  #! clock-decides remaining
                    break
        finally:
            print(count)
"""

PORTS["a list, a queue and a window filled through functions"] = """
from trainerd import *
from collections import deque
import torch
window = deque(maxlen=100)
history = {"loss": [], "accuracy": []}

def remember(loss):
    window.append(loss)  #! carried-variable window

def log_epoch(record, name, value):
    record[name].append(value)  #! carried-variable history

class Fit:
    rounds = 0
    def __init__(self):
        self.scores = []
    def epoch(self, run, model, optimizer):
        for x in run.batches(loader):
            loss = model(x).mean()
            optimizer.zero_grad(); loss.backward(); optimizer.step()
            remember(loss.item())
        Fit.rounds += 1  #! carried-variable Fit.rounds
        self.scores.append(sum(window) / len(window))

def main():
    fit = Fit()  #! untracked-object fit
    with session() as run:
        model = build(); optimizer = torch.optim.SGD(model.parameters(), 0.1)
        run.track(model=model, optimizer=optimizer)
        for epoch in run.epochs(3):
            fit.epoch(run, model, optimizer)
            log_epoch(history, "accuracy", evaluate(model))
        draw(history, fit.scores)
"""

PORTS["a Checkpointer alone"] = """
import torch, trainerd
model = build()
optimizer = torch.optim.SGD(model.parameters(), 0.1)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10)  #! untracked-object scheduler
with trainerd.Checkpointer("checkpoints", {"model": model, "optimizer": optimizer}) as checkpointer:
    checkpoint = checkpointer.resume()
    step = checkpoint.manifest.step if checkpoint else 0
    best = 0.0
    for epoch in range(checkpoint.manifest.epoch if checkpoint else 0, 10):
        total = 0.0
        for x in loader:
            total += train_step(x)
            step += 1
        scheduler.step()
        best = max(best, total)  #! carried-variable best
        checkpointer.save(step=step, epoch=epoch + 1, scores={"best": best})
"""
