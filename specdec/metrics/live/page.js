// Asks every two seconds, keeps ten minutes, shows them.

const EVERY = 2000, KEPT = 600000, SMOOTH = 10000, PATIENCE = 5000; // milliseconds
const records = [];
const points = []; // of the charts: figures over the last SMOOTH, at each scrape
const find = (id) => document.getElementById(id);

function show(state, status) {
  document.body.dataset.state = state;
  find("status").textContent = status;
}

async function ask() {
  const answer = await fetch("metrics", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  return record(await answer.text(), performance.now());
}

function keep(found) {
  const last = records.at(-1);
  if (last && found.counts.steps + found.counts.tokens < last.counts.steps + last.counts.tokens) {
    records.length = points.length = 0; // the server started anew
  }
  records.push(found);
  while (found.at - records[0].at > KEPT) records.shift();
  // A page in the background asks less often: then it is the last one.
  const recent = records.find((kept) => found.at - kept.at <= SMOOTH), before = recent === found ? records.at(-2) : recent;
  if (before) points.push({ at: found.at, ...figures(found, before) });
  while (points.length && found.at - points[0].at > KEPT) points.shift();
}

function tiles(found, lately) {
  const shown = [
    ["acceptance length", two(lately.length), "tokens per step"],
    ["throughput", whole(lately.throughput), "output tokens/s"],
    ["requests running", whole(found.now.running), `${whole(found.now.waiting)} waiting`],
    ["drafts per step", whole(found.now.drafts), `none in ${percent(lately.undrafted)}`],
    ["target entropy", two(lately.entropy), "nats, mean"],
    ["verifying takes", milliseconds(lately.phases[1]), "per engine step"],
  ];
  find("tiles").innerHTML = shown
    .map(([name, value, unit]) => `<div class="tile"><span class="dim">${name}</span><b>${value}</b><span class="dim">${unit}</span></div>`)
    .join("");
}

function positions(all) {
  find("positions").tBodies[0].replaceChildren(
    ...all.positions.map((of) => {
      const row = document.createElement("tr");
      row.dataset.position = of.position;
      const cells = [of.position, "", share(of.observed), share(of.expected), share(of.exact), whole(of.reached)];
      row.append(...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
      row.cells[1].append(bar(of.observed, of.expected));
      return row;
    }),
  );
}

// The time axis grows with what is kept, up to all of it.
function courses() {
  const end = records.at(-1).at, span = Math.min(KEPT, Math.max(60000, Math.ceil((end - records[0].at) / 60000) * 60000));
  const drawn = (place, values, options) =>
    lines(place, points.map((point) => ({ at: point.at, values: values(point) })), { end, span, ...options });
  drawn(find("length"), (point) => ({ value: point.length }), { least: 1, digits: 1 });
  drawn(find("throughput"), (point) => ({ value: point.throughput }), { digits: 0 });
  const known = records.at(-1).counts.reached, place = find("courses");
  const names = Object.keys(known).sort((a, b) => a - b);
  if (place.children.length !== names.length) {
    place.innerHTML = names.map((name) => `<div><h3>position ${Number(name)}</h3><div></div></div>`).join("");
  }
  names.forEach((name, i) => {
    const of = (point) => point.positions.find((found) => found.position === name) || { observed: null, expected: null };
    const values = (point) => ({ expected: of(point).expected, observed: of(point).observed });
    drawn(place.children[i].lastChild, values, { most: 1, digits: 1, height: 120 });
  });
}

function rest(found, lately, kept, ever) {
  const three = (name, said, of) => [name, said(of(lately)), said(of(kept)), said(of(ever))];
  const rows = [
    ...PHASES.map((phase, i) => three(`time of a step: ${phase}`, milliseconds, (of) => of.phases[i])),
    three("acceptance length", two, (of) => of.length),
    three("steps without drafts", percent, (of) => of.undrafted),
    three("lost draft rows", percent, (of) => of.lost),
    three("entropy of the target, nats", two, (of) => of.entropy),
    ["memory for draft rows, now", said(1, " MiB", 2 ** -20)(found.now.memory), "", ""],
    ["steering programs, now", whole(found.now.programs), "", ""],
  ];
  find("rest").tBodies[0].innerHTML = rows.map((row) => `<tr>${row.map((cell) => `<td>${cell}</td>`).join("")}</tr>`).join("");
}

function draw() {
  const found = records.at(-1), none = found.counts.steps === 0;
  find("empty").hidden = !none;
  find("figures").hidden = none;
  find("served").textContent = found.models.join(", ");
  show(none ? "empty" : "live", `live, every ${EVERY / 1000} s`);
  if (none) return;
  const ever = figures(found, null), kept = records.length > 1 ? figures(found, records[0]) : ever;
  const covered = `last ${ago(Math.max(EVERY, Math.round((found.at - records[0].at) / EVERY) * EVERY))}`;
  const drafted = kept !== ever && kept.positions.some((of) => of.reached > 0);
  find("over").textContent = drafted ? covered : "since the server started";
  find("rest-over").textContent = kept === ever ? "" : covered;
  const lately = points.length ? points.at(-1) : ever;
  tiles(found, lately);
  positions(drafted ? kept : ever);
  rest(found, lately, kept, ever);
  courses();
}

function tell(error) {
  const last = records.at(-1);
  const silent = last ? `, silent for ${Math.round((performance.now() - last.at) / 1000)} s` : "";
  show("gone", `The server does not answer (${error.message || error.name})${silent}`);
}

async function look() {
  try {
    const found = await ask();
    if (found) {
      keep(found);
      draw();
    } else {
      show("bare", "The server shows no figures of specdec: metrics.enabled is false");
    }
  } catch (error) {
    tell(error);
  }
  setTimeout(look, EVERY);
}

addEventListener("resize", () => points.length && courses());
look();
