// Keeps the page as the supervisor is: on each change that the server tells of, the part of the page that
// changes is fetched again, as the server has rendered (and escaped) it. Nothing else is ever put in as HTML.
"use strict";
(() => {
  const REFRESH_MS = 2000;
  const up = document.body.dataset.up;
  const live = document.getElementById("live");
  const link = document.getElementById("link");
  let isDue = false, isBusy = false, lastMs = 0, timer = 0;

  function say(isLive) {
    link.textContent = isLive ? "live" : "not connected";
    link.classList.toggle("live", isLive);
  }

  function isReading() {
    const chosen = document.getSelection();
    return document.hidden || (chosen && chosen.type === "Range");
  }

  async function refresh() {
    if (isBusy) return;
    if (isReading()) { plan(); return; }
    isDue = false; isBusy = true; lastMs = Date.now();
    try {
      const answer = await fetch(location.pathname + "?fragment=1", { credentials: "same-origin" });
      if (answer.status === 401) { say(false); return; }
      const text = await answer.text();
      const open = new Set([...live.querySelectorAll("details[open]")].map((each) => each.id));
      const before = document.getElementById("log");
      const isAtEnd = !before || before.scrollHeight - before.scrollTop - before.clientHeight < 30;
      const at = before ? before.scrollTop : 0;
      live.innerHTML = text;
      for (const each of live.querySelectorAll("details")) each.open = open.has(each.id);
      const after = document.getElementById("log");
      if (after) after.scrollTop = isAtEnd ? after.scrollHeight : at;
      localTimes();
      await draw();
    } catch (error) {
      say(false);
    } finally {
      isBusy = false;
      if (isDue) plan();
    }
  }

  function plan() {
    isDue = true;
    clearTimeout(timer);
    timer = setTimeout(refresh, Math.max(REFRESH_MS - (Date.now() - lastMs), 50));
  }

  function localTimes() {
    for (const each of document.querySelectorAll("time[data-wall]")) {
      each.title = new Date(1000 * Number(each.dataset.wall)).toLocaleString();
    }
  }

  // ---------------------------------------------------------------- the chart
  const chart = document.getElementById("chart");
  const choice = document.getElementById("metric");
  let plot = null, marks = { restarts: [], checkpoints: [] }, shown = "", known = "";

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function drawMarks(u) {
    const { left, top, width, height } = u.bbox, ctx = u.ctx;
    ctx.save();
    ctx.beginPath(); ctx.rect(left, top, width, height); ctx.clip();
    ctx.strokeStyle = colour("--bad"); ctx.lineWidth = 2; ctx.setLineDash([6, 4]);
    for (const [, step] of marks.restarts) {
      const x = u.valToPos(step, "x", true);
      ctx.beginPath(); ctx.moveTo(x, top); ctx.lineTo(x, top + height); ctx.stroke();
    }
    ctx.setLineDash([]); ctx.fillStyle = colour("--good");
    const size = 5 * devicePixelRatio;
    for (const step of marks.checkpoints) {
      const x = u.valToPos(step, "x", true), y = top + height;
      ctx.beginPath(); ctx.moveTo(x - size, y); ctx.lineTo(x + size, y); ctx.lineTo(x, y - 2 * size); ctx.fill();
    }
    ctx.restore();
  }

  function options(name) {
    const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
    return {
      width: chart.clientWidth - 24, height: 260, scales: { x: { time: false } },
      axes: [{ ...axis }, { ...axis, size: 60 }],
      series: [
        { label: "step" },
        { label: name, stroke: colour("--accent"), width: 1.5, spanGaps: true, points: { show: false } },
        { label: "lost", stroke: colour("--c-repeated"), width: 1, spanGaps: false, points: { show: true, size: 3 } },
      ],
      hooks: { draw: [drawMarks] },
    };
  }

  async function draw() {
    if (!chart) return;
    const asked = choice.value ? "?name=" + encodeURIComponent(choice.value) : "";
    const answer = await fetch(chart.dataset.curve + asked, { credentials: "same-origin" });
    if (!answer.ok) return;
    const curve = await answer.json();
    document.getElementById("empty").hidden = curve.x.length > 0;
    document.getElementById("partial").textContent = curve.is_partial ? "sampled: the history is large" : "";
    marks = curve;
    if (curve.names.join("\n") !== known) {
      known = curve.names.join("\n");
      choice.replaceChildren(...curve.names.map((each) => new Option(each, each, false, each === curve.name)));
    }
    if (!curve.x.length) return;
    const data = [curve.x, curve.kept, curve.lost];
    if (!plot || shown !== curve.name) {
      if (plot) plot.destroy();
      shown = curve.name;
      plot = new uPlot(options(curve.name), data, document.getElementById("plot"));
    } else {
      const { min, max } = plot.scales.x, first = plot.data[0][0], last = plot.data[0][plot.data[0].length - 1];
      const isZoomed = min > first || max < last;
      plot.setData(data, !isZoomed);
      if (isZoomed) plot.redraw();
    }
  }

  function restyle() {
    if (plot) { plot.destroy(); plot = null; draw(); }
  }

  if (chart) {
    choice.addEventListener("change", draw);
    new ResizeObserver(() => plot && plot.setSize({ width: chart.clientWidth - 24, height: 260 })).observe(chart);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
    draw();
  }

  const log = document.getElementById("log");
  if (log) log.scrollTop = log.scrollHeight;
  localTimes();
  document.addEventListener("visibilitychange", () => { if (!document.hidden && isDue) plan(); });
  const source = new EventSource(up + "stream");
  source.addEventListener("open", () => say(true));
  source.addEventListener("error", () => say(false));
  source.addEventListener("change", plan);
})();
