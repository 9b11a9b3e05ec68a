// The text of /metrics as one record of numbers, added up over servers' engines, models and tenants.

const SAMPLE = /^((?:specdec_|vllm:)[\w:]+)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

// name -> [{labels, value}], of our samples and vLLM's.
function parse(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const match = SAMPLE.exec(line);
    if (!match) continue;
    const labels = Object.fromEntries([...(match[2] || "").matchAll(LABEL)].map((m) => [m[1], m[2]]));
    if (!found.has(match[1])) found.set(match[1], []);
    found.get(match[1]).push({ labels, value: Number(match[3]) });
  }
  return found;
}

function total(samples, name) {
  return (samples.get(name) || []).reduce((sum, sample) => sum + sample.value, 0);
}

// {value of the label: sum}
function by(samples, name, label) {
  const sums = {};
  for (const { labels, value } of samples.get(name) || []) sums[labels[label]] = (sums[labels[label]] || 0) + value;
  return sums;
}

// What is kept of one scrape. at: milliseconds. `counts` only grow while the server lives; `now` is what holds.
function record(text, at) {
  const samples = parse(text);
  if (![...samples.keys()].some((name) => name.startsWith("specdec_"))) return null;
  const count = (name) => total(samples, name);
  const position = (name) => by(samples, name, "position");
  return {
    at,
    models: [...new Set((samples.get("specdec_verify_steps_total") || []).map((s) => s.labels.model_name))],
    counts: {
      tokens: count("vllm:generation_tokens_total"),
      steps: count("specdec_verify_steps_total"),
      undrafted: count("specdec_undrafted_steps_total"),
      lost: count("specdec_lost_draft_rows_total"),
      drafts: count("specdec_draft_tokens_total"),
      gained: count("specdec_tokens_per_step_sum"),
      gains: count("specdec_tokens_per_step_count"),
      entropy: count("specdec_target_entropy_nats_sum"),
      entropies: count("specdec_target_entropy_nats_count"),
      reached: position("specdec_reached_draft_tokens_total"),
      accepted: position("specdec_accepted_tokens_total"),
      expected: position("specdec_expected_acceptance_sum_total"),
      exact: position("specdec_exact_acceptance_sum_total"),
      rows: position("specdec_exact_acceptance_rows_total"),
      seconds: by(samples, "specdec_phase_seconds_sum", "phase"),
      timed: by(samples, "specdec_phase_seconds_count", "phase"),
    },
    now: {
      running: count("vllm:num_requests_running"),
      waiting: count("vllm:num_requests_waiting"),
      drafts: count("specdec_drafts_per_step"),
      memory: count("specdec_draft_rows_bytes"),
      programs: count("specdec_steering_programs"),
    },
  };
}
