// Figures of what counts grew by between two records; null wherever nothing was counted.

const PHASES = ["target", "verify", "draft"];

function minus(later, earlier) {
  const grown = {};
  for (const [name, value] of Object.entries(later)) {
    const before = earlier ? earlier[name] : undefined;
    grown[name] = typeof value === "object" ? minus(value, before) : value - (before || 0);
  }
  return grown;
}

function ratio(part, whole) {
  return whole > 0 ? (part || 0) / whole : null;
}

// earlier: a record, or null for "since the server started".
function figures(later, earlier) {
  const grown = minus(later.counts, earlier && earlier.counts);
  const positions = Object.keys(later.counts.reached).sort((a, b) => a - b);
  return {
    positions: positions.map((position) => ({
      position,
      reached: grown.reached[position],
      observed: ratio(grown.accepted[position], grown.reached[position]),
      expected: ratio(grown.expected[position], grown.reached[position]),
      exact: ratio(grown.exact[position], grown.rows[position]),
    })),
    length: ratio(grown.gained, grown.gains),
    throughput: earlier ? ratio(grown.tokens, (later.at - earlier.at) / 1000) : null,
    entropy: ratio(grown.entropy, grown.entropies),
    undrafted: ratio(grown.undrafted, grown.undrafted + grown.steps),
    lost: ratio(grown.lost, grown.drafts),
    phases: PHASES.map((phase) => ratio(grown.seconds[phase], grown.timed[phase])),
  };
}

const said = (digits, unit = "", factor = 1) => (value) =>
  value === null || value === undefined ? "–" : (value * factor).toFixed(digits) + unit;
const share = said(3), percent = said(1, " %", 100), milliseconds = said(2, " ms", 1000), two = said(2), whole = said(0);
