'use strict';
function cellValue(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? cell.textContent.trim() : cell.dataset.value;
}
function compareCells(a, b) {
  if (a === 'n/a' || b === 'n/a') return (a === 'n/a') - (b === 'n/a');
  const x = Number(a), y = Number(b);
  if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
  return a.localeCompare(b, undefined, { numeric: true });
}
function sortTable(header) {
  const table = header.closest('table');
  const body = table.tBodies[0];
  const column = header.cellIndex;
  const down = header.getAttribute('aria-sort') === 'ascending';
  for (const other of header.parentNode.cells) other.removeAttribute('aria-sort');
  header.setAttribute('aria-sort', down ? 'descending' : 'ascending');
  const rows = Array.from(body.rows).map((row) => [cellValue(row, column), row]);
  rows.sort((a, b) => {
    const missing = (a[0] === 'n/a') - (b[0] === 'n/a');
    return missing || (down ? compareCells(b[0], a[0]) : compareCells(a[0], b[0]));
  });
  body.append(...rows.map((pair) => pair[1]));
}
function filterTable(input) {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  const table = document.getElementById(input.dataset.table);
  for (const row of table.tBodies[0].rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
}
function download(button) {
  const source = document.getElementById(button.dataset.source);
  const content = JSON.parse(source.textContent);
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([content], { type: 'text/tab-separated-values' }));
  link.download = button.dataset.name;
  link.click();
  URL.revokeObjectURL(link.href);
}
document.addEventListener('click', (event) => {
  const target = event.target.closest('button');
  if (!target) return;
  if (target.dataset.source) download(target);
  else if (target.closest('thead')) sortTable(target.closest('th'));
});
document.addEventListener('input', (event) => {
  if (event.target.dataset.table) filterTable(event.target);
});
function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const fold = target && target.closest('details');
  if (fold) fold.open = true;
}
window.addEventListener('hashchange', unfold);
unfold();
