'use strict';
// The page of app.html: sends a file, asks how far it is, shows the answer.
const at = (id) => document.getElementById(id);
let sending = null; // the upload under way
let job = null; // its number, once the server has it
let asking = 0;
let mostBytes = Infinity;

function show(part) {
  for (const id of ['drop', 'work', 'result']) at(id).hidden = id !== part;
}

function fail(text) {
  clearTimeout(asking);
  job = sending = null;
  at('file').value = ''; // so that the same file can be chosen again
  at('error').textContent = text;
  at('error').hidden = false;
  show('drop');
}

function begin(file) {
  at('error').hidden = true;
  if (file.size > mostBytes) {
    return fail(file.name + ' has ' + Math.ceil(file.size / 2 ** 20)
      + ' MiB; at most ' + Math.round(mostBytes / 2 ** 20) + ' MiB are taken.');
  }
  at('name').textContent = file.name;
  at('state').textContent = 'Sending';
  at('progress').value = 0;
  show('work');
  const request = (sending = new XMLHttpRequest());
  request.open('POST', '/api/jobs?name=' + encodeURIComponent(file.name));
  request.upload.onprogress = (event) => {
    if (event.lengthComputable) at('progress').value = event.loaded / event.total;
  };
  request.onload = () => {
    if (sending !== request) return;
    sending = null;
    let said = {};
    try { said = JSON.parse(request.responseText); } catch (error) { /* below */ }
    if (request.status !== 201) return fail(said.error || 'The server refused.');
    job = said.id;
    ask();
  };
  request.onerror = () => {
    if (sending === request) fail('The server could not be reached, or refused.');
  };
  request.send(file);
}

async function ask() {
  const asked = job;
  let said;
  try {
    const reply = await fetch('/api/jobs/' + asked);
    said = await reply.json();
  } catch (error) {
    if (job === asked) fail('The server could not be reached.');
    return;
  }
  if (job !== asked) return;
  if (said.state === 'done') return finish();
  if (said.state === 'queued' || said.state === 'running') {
    at('state').textContent = said.state === 'running'
      ? 'Looking: ' + Math.round(100 * said.share) + ' %'
      : said.ahead ? 'Waiting, ' + said.ahead + ' before this' : 'Waiting';
    at('progress').value = said.state === 'running' ? said.share : 0;
    asking = setTimeout(ask, 400);
    return;
  }
  fail(said.error || said.state || 'No answer.');
}

function finish() {
  const base = '/api/jobs/' + job;
  at('json').href = base + '/answer.json';
  at('page').href = at('report').src = base + '/report.html';
  show('result');
}

function cancel() {
  clearTimeout(asking);
  if (sending) sending.abort();
  if (job) fetch('/api/jobs/' + job, {method: 'DELETE'}).catch(() => {});
  sending = job = null;
  at('file').value = '';
  show('drop');
}

at('file').addEventListener('change', () => {
  if (at('file').files.length) begin(at('file').files[0]);
});
at('drop').addEventListener('dragover', (event) => {
  event.preventDefault();
  at('drop').classList.add('over');
});
at('drop').addEventListener('dragleave', () => at('drop').classList.remove('over'));
at('drop').addEventListener('drop', (event) => {
  event.preventDefault();
  at('drop').classList.remove('over');
  if (event.dataTransfer.files.length) begin(event.dataTransfer.files[0]);
});
at('cancel').addEventListener('click', cancel);
at('again').addEventListener('click', cancel);
fetch('/api/detector').then((reply) => reply.json()).then((said) => {
  mostBytes = said.most_bytes;
  const about = said.calibration || '';
  at('about').textContent = about.charAt(0).toUpperCase() + about.slice(1)
    + (about ? '. ' : '') + 'Files of up to '
    + Math.round(said.most_bytes / 2 ** 20) + ' MiB. The answer is forgotten after '
    + Math.ceil(said.keep_seconds / 60) + ' minutes.';
}).catch(() => {});
