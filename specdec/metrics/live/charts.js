// Bars and lines as SVG, drawn anew at each scrape.

const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes, parent, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

// A bar from 0 to 1 with a mark where it is expected to end.
function bar(observed, expected) {
  const svg = element("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", height: 16, "aria-hidden": "true" });
  element("rect", { class: "track", x: 0, y: 3.6, width: 100, height: 0.8 }, svg);
  if (observed !== null) element("rect", { class: "bar", x: 0, y: 1, width: 100 * observed, height: 6 }, svg);
  if (expected !== null) element("rect", { class: "tick", x: 100 * expected - 0.4, y: 0, width: 0.8, height: 8 }, svg);
  return svg;
}

// A round number at or above the value.
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((step) => step * power >= value * 0.999);
}

// points: [{at, values: {observed, expected}}], oldest first; a null value is a gap. options: {least, most, digits,
// height, end: time at the right edge, span: milliseconds from left to right}.
function lines(place, points, options) {
  const width = Math.max(place.clientWidth, 200), height = options.height || 170;
  const left = 38, bottom = height - 20, top = 8;
  const known = points.flatMap((point) => Object.values(point.values)).filter((value) => value !== null);
  const least = options.least || 0, most = options.most || ceiling(Math.max(...known, least + 1));
  const x = (at) => width - ((options.end - at) / options.span) * (width - left);
  const y = (value) => bottom - ((value - least) / (most - least)) * (bottom - top);
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
  for (const part of [0, 0.5, 1]) {
    const value = least + part * (most - least);
    element("line", { class: "grid", x1: left, x2: width, y1: y(value), y2: y(value) }, svg);
    element("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, svg, said(most < 3 ? 1 : options.digits)(value));
  }
  for (const part of [1, 0.5, 0]) {
    const at = options.end - part * options.span, anchor = part === 1 ? "start" : part ? "middle" : "end";
    element("text", { x: x(at), y: height - 4, "text-anchor": anchor }, svg, part ? `−${ago(part * options.span)}` : "now");
  }
  for (const name of Object.keys(points.length ? points[0].values : {})) {
    const group = element("g", { class: name }, svg);
    element("path", { class: "course", d: path(points, name, x, (value) => y(Math.min(value, most))) }, group);
  }
  pointed(svg, points, x, { left, top, bottom, width, digits: options.digits });
  place.replaceChildren(svg);
}

function path(points, name, x, y) {
  let drawn = "", down = false;
  for (const { at, values } of points) {
    const value = values[name];
    if (value !== null) drawn += `${down ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    if (value !== null && !down) drawn += "h0.1"; // a single point is seen too
    down = value !== null;
  }
  return drawn;
}

function ago(milliseconds) {
  const seconds = Math.round(milliseconds / 1000);
  return seconds % 60 && seconds < 180 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
}

// A line and the numbers below the pointer.
function pointed(svg, points, x, box) {
  const group = element("g", { visibility: "hidden" }, svg);
  const cross = element("line", { class: "cross", y1: box.top, y2: box.bottom }, group);
  const text = element("text", { class: "said", y: box.top + 10 }, group);
  svg.addEventListener("pointerleave", () => group.setAttribute("visibility", "hidden"));
  svg.addEventListener("pointermove", (event) => {
    const box_x = event.clientX - svg.getBoundingClientRect().left;
    const nearest = points.reduce((a, b) => (!a || Math.abs(x(b.at) - box_x) < Math.abs(x(a.at) - box_x) ? b : a), null);
    if (!nearest) return;
    const at = x(nearest.at), right = at > (box.left + box.width) / 2;
    cross.setAttribute("x1", at);
    cross.setAttribute("x2", at);
    text.setAttribute("x", at + (right ? -6 : 6));
    text.setAttribute("text-anchor", right ? "end" : "start");
    text.textContent = Object.entries(nearest.values)
      .map(([name, value]) => (name === "value" ? "" : `${name} `) + said(box.digits)(value)).join("  ");
    group.setAttribute("visibility", "visible");
  });
}
