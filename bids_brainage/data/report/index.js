'use strict';
const KEYS = { a: 'accept', u: 'unsure', r: 'reject' };
const COLUMNS = ['participant_id', 'session_id', 'source', 'rating', 'note'];
const STORE = 'bids_brainage ratings ' + location.pathname;
const list = document.getElementById('scans');
const scans = Array.from(list.children);
const control = (id) => document.getElementById(id);

function read(scan) {
  const form = scan.querySelector('form');
  return { rating: form.rating.value, note: form.note.value };
}
function show(scan, rating, note) {
  const form = scan.querySelector('form');
  for (const choice of form.rating) choice.checked = choice.value === rating;
  form.note.value = note;
  scan.dataset.rating = rating;
}
function keep() {
  const kept = {};
  for (const scan of scans) {
    const found = read(scan);
    scan.dataset.rating = found.rating;
    if (found.rating || found.note) kept[scan.dataset.source] = found;
  }
  control('rated').textContent = scans.filter((scan) => scan.dataset.rating).length;
  try { localStorage.setItem(STORE, JSON.stringify(kept)); } catch (error) { /* private window */ }
}
function recall(kept) {
  for (const scan of scans) {
    const found = kept[scan.dataset.source];
    if (found) show(scan, found.rating, found.note);
  }
  keep();
}
function filter() {
  const flag = control('flag').value, rating = control('rating').value;
  const words = control('words').value.toLowerCase();
  let shown = 0;
  for (const scan of scans) {
    const flags = scan.dataset.flags.split(' ').filter(Boolean);
    const fits = !flag || (flag === 'any' ? flags.length > 0
      : flag === 'none' ? flags.length === 0 : flags.includes(flag));
    const rated = !rating || (scan.dataset.rating || 'none') === rating;
    const named = scan.querySelector('h2').textContent.toLowerCase().includes(words);
    scan.hidden = !(fits && rated && named);
    shown += !scan.hidden;
  }
  control('shown').textContent = shown;
}
function order() {
  const size = (scan) => (scan.dataset.gap === '' ? -1 : Math.abs(Number(scan.dataset.gap)));
  const sorted = control('order').value ? [...scans].sort((a, b) => size(b) - size(a)) : scans;
  list.append(...sorted);
}
function cell(text) {
  return text.replace(/\s+/g, ' ').trim() || 'n/a';
}
function table() {
  const rows = scans.map((scan) => ({ scan, ...read(scan) })).filter((r) => r.rating || r.note);
  const lines = rows.map(({ scan, rating, note }) => [
    scan.dataset.person, scan.dataset.session, scan.dataset.source, rating, note,
  ].map(cell).join('\t'));
  return [COLUMNS.join('\t'), ...lines].join('\n') + '\n';
}
function save() {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([table()], { type: 'text/tab-separated-values' }));
  link.download = 'ratings.tsv';
  link.click();
  URL.revokeObjectURL(link.href);
}
function load(text) {
  const [head, ...lines] = text.trim().split(/\r?\n/).map((line) => line.split('\t'));
  const at = (name) => head.indexOf(name);
  const kept = {};
  for (const cells of lines) {
    const value = (name) => (cells[at(name)] === 'n/a' ? '' : cells[at(name)] || '');
    kept[value('source')] = { rating: value('rating'), note: value('note') };
  }
  recall(kept);
  filter();
}
function step(by) {
  const visible = Array.from(list.children).filter((scan) => !scan.hidden);
  const here = visible.indexOf(document.activeElement.closest('.scan'));
  const next = visible[Math.min(Math.max(here + by, 0), visible.length - 1)];
  if (next) {
    next.focus();
    next.scrollIntoView({ block: 'nearest' });
  }
}
document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest('.tools, input[type="text"]')) return;
  const scan = event.target.closest('.scan');
  if (event.key === 'ArrowRight' || event.key === 'j') step(1);
  else if (event.key === 'ArrowLeft' || event.key === 'k') step(-1);
  else if (scan && KEYS[event.key]) {
    show(scan, KEYS[event.key], scan.querySelector('form').note.value);
    keep();
  } else if (event.key === 'Enter' && event.target === scan) {
    const link = scan.querySelector('h2 a');
    if (link) location.href = link.href;
  } else return;
  event.preventDefault();
});
list.addEventListener('input', keep);
list.addEventListener('submit', (event) => event.preventDefault());
for (const id of ['flag', 'rating', 'words']) control(id).addEventListener('input', filter);
control('order').addEventListener('input', order);
control('save').addEventListener('click', save);
control('load').addEventListener('change', async (event) => load(await event.target.files[0].text()));
try { recall(JSON.parse(localStorage.getItem(STORE)) || {}); } catch (error) { keep(); }
