"""The answer to one video as one page of HTML that needs nothing else.

Enters: an `answer.Answer`. Leaves: HTML with its pictures inside, no script and
no address of another machine, readable offline, on a desktop and on a phone.
"""

import base64
import html
import json
import math
import pathlib

import cv2
import numpy as np

from stormer_jax.scoring import answer, heat, timeline

_STYLE = pathlib.Path(__file__).parent / 'answer_page.css'
_STRIP = 16  # faces of the strip
_KEY_CLIPS = 3  # clips of a person that are shown with their maps
_MOST_PEOPLE = 4  # of which the worst clips are shown
_WORDS = {
  '': 'No verdict',
  'likely real': 'Likely real',
  'uncertain': 'Uncertain',
  'likely fake': 'Likely fake',
}
_CLASSES = {'likely real': 'real', 'uncertain': 'unsure', 'likely fake': 'fake'}


def make(said: answer.Answer, card: str = '') -> str:
  """Returns the page.

  Args:
    said: With its snapshots, as `Detector.predict` returned it.
    card: What is known of the detector, Markdown or plain text.
  """
  name = html.escape(pathlib.PurePath(said.video).name or said.video)
  parts = [_head(said, name)]
  if said.status == 'ok':
    parts += [
      _section('When', timeline.draw(said) + _legend(said)),
      _section('Who', _people(said)) if len(said.tracks) > 1 else '',
      _section('Faces', _strip(said)),
      _section('What looked most forged', _key_clips(said)),
    ]
  parts += [
    _section('What was looked at, and what was not', _looked_at(said)),
    _section('Where the file says it comes from', _credentials(said)),
    _section('How far to trust this', _trust(said, card)),
    _section('File and detector', _hashes(said)),
  ]
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    f'<title>{name}: {_WORDS[said.answer]}</title>'
    f'<style>{_STYLE.read_text()}</style></head><body><main>{"".join(parts)}</main></body></html>\n'
  )


def write(said: answer.Answer, out: pathlib.Path, card: str = '') -> None:
  """Writes the page, whole or not at all."""
  answer.write_whole(out, make(said, card).encode())


def _head(said: answer.Answer, name: str) -> str:
  kind = _CLASSES.get(said.answer, 'plain')
  word = _WORDS[said.answer] if said.status == 'ok' else 'No answer'
  words = said.sentence.partition(': ')[2] or said.sentence
  words = html.escape(words[:1].upper() + words[1:])
  notes = ''.join(f'<li>{html.escape(note)}</li>' for note in said.notes)
  return (
    f'<header class="{kind}"><p class="file">{name}</p><h1>{word}</h1>'
    f'<p class="words">{words}</p>'
    f'{_scale(said) if said.status == "ok" else ""}'
    f'{f"<ul class=notes>{notes}</ul>" if notes else ""}</header>'
  )


def _scale(said: answer.Answer) -> str:
  """A line from real to fake with band, interval and answer on it."""
  calibrated = not math.isnan(said.probability)
  value = said.probability if calibrated else said.score
  band = span = ''
  if said.uncertain:
    low, high = said.uncertain
    band = (
      f'<span class="zone" style="left:{100 * low:.1f}%;'
      f'width:{100 * (high - low):.1f}%" title="uncertain"></span>'
    )
  if said.interval:
    low, high = said.interval
    span = (
      f'<span class="span" style="left:{100 * low:.1f}%;'
      f'width:{max(100 * (high - low), 0.4):.1f}%"></span>'
    )
  title = 'probability of fake' if calibrated else 'score, not calibrated'
  return (
    '<div class="scale"><div class="line">'
    f'{band}{span}<span class="dot" style="left:{100 * value:.1f}%"></span>'
    f'</div><div class="ends"><span>0 real</span><span>{title}'
    f' <b>{value:.2f}</b></span><span>1 fake</span></div></div>'
  )


def _legend(said: answer.Answer) -> str:
  bars = (
    'A bar is a clip; its height is how forged it looks, from 0 to 1.'
    if said.uncertain
    else 'A bar is a clip; its height is its score, from 0 to 1.'
  )
  strip = (
    ' The strip below the bars is how strong a blending boundary the detector'
    ' sees in each frame, the darker the stronger.'
    if timeline.is_trained(said, 'soft_labels')
    else ''
  )
  keys = (
    '<span class="key real"></span>likely real <span class="key unsure">'
    '</span>uncertain <span class="key fake"></span>likely fake'
    if said.uncertain
    else ''
  )
  passages = ''.join(
    f'<li><b>{timeline.clock(s.start)} to {timeline.clock(s.end)}</b>'
    f'{f", person {s.track}" if len(said.tracks) > 1 else ""}:'
    f' {_chance(s.probability, s.score)} over {s.num_clips}'
    f' clip{"s" if s.num_clips > 1 else ""}</li>'
    for s in said.segments
  )
  title = 'What looks forged:' if said.uncertain else 'What scores highest:'
  found = (
    f'<p>{title}</p><ul>{passages}</ul>'
    if passages
    else '<p>No passage stands out.</p>'
  )
  return (
    f'<p class="legend">{keys}</p><p class="small">{bars}{strip}</p>{found}'
  )


def _chance(probability: float, score: float) -> str:
  if math.isnan(probability):
    return f'score {score:.2f}'
  return f'probability {probability:.2f}'


def _people(said: answer.Answer) -> str:
  rows = ''.join(
    f'<tr{" class=decides" if t.decides else ""}><td>{_face_of(said, t)}'
    f'</td><td>{t.number}</td>'
    f'<td>{_WORDS[t.answer] if t.answer else "-"}'
    f'{" (decides)" if t.decides else ""}'
    f'</td><td>{_chance(t.probability, t.score)}</td>'
    f'<td>{timeline.clock(t.first_time)} to {timeline.clock(t.last_time)}</td>'
    f'<td>{t.num_clips}</td><td>{t.face_size:.0f} px</td>'
    f'<td>{html.escape(t.left_out) or "-"}</td></tr>'
    for t in said.tracks
  )
  return (
    '<p>Everybody whose face could be followed is scored, and the worst of'
    ' those seen well enough decides.</p>'
    '<div class="wide"><table><thead><tr><th></th>'
    '<th>person</th><th>answer</th><th></th><th>seen</th><th>clips</th>'
    f'<th>face</th><th>left out</th></tr></thead><tbody>{rows}</tbody></table>'
    '</div>'
  )


def _face_of(said: answer.Answer, track: answer.Track) -> str:
  own = [s for s in said.snapshots if s.track == track.number]
  if not own:
    return ''
  return _picture(own[len(own) // 2].thumbnail, f'person {track.number}', 48)


def _strip(said: answer.Answer) -> str:
  """Faces at even distances, with the colour of their clip."""
  track = next(t.number for t in said.tracks if t.decides)
  own = [s for s in said.snapshots if s.track == track]
  places = np.unique(np.linspace(0, len(own) - 1, _STRIP).round().astype(int))
  cells = []
  for snapshot in (own[place] for place in places.tolist()):
    clip = said.clips[snapshot.clip]
    value = clip.score if math.isnan(clip.probability) else clip.probability
    time = timeline.clock(clip.times[0])
    cells.append(
      f'<figure class="{timeline.kind(value, said)}">'
      f'{_picture(snapshot.thumbnail, f"face at {time}", 96)}'
      f'<figcaption>{time}<b>{value:.2f}</b></figcaption></figure>'
    )
  who = f' of person {track}' if len(said.tracks) > 1 else ''
  return (
    f'<p class="small">The face{who} at even distances, with its clip\'s'
    f' value.</p><div class="strip">{"".join(cells)}</div>'
  )


def _key_clips(said: answer.Answer) -> str:
  with_map = timeline.is_trained(said, 'vulnerability_map')
  about = (
    ' Beside or below each face the vulnerability map over it: bright where the'
    ' detector expects that a forgery would show more than elsewhere in the'
    ' face. It is no proof.'
    if with_map
    else ' This detector was not trained to show where.'
  )
  clips = []
  worst_first = sorted(said.tracks, key=lambda t: -t.logit)[:_MOST_PEOPLE]
  for track in worst_first:
    own = [s for s in said.snapshots if s.track == track.number and s.crops]
    own.sort(key=lambda s: -said.clips[s.clip].logit)
    clips += [_key_clip(said, s, with_map) for s in own[:_KEY_CLIPS]]
  return (
    '<p class="small">The clips that look most forged, as the detector got'
    f' them.{about}</p><div class="clips">{"".join(clips)}</div>'
  )


def _key_clip(
  said: answer.Answer, snapshot: answer.Snapshot, with_map: bool
) -> str:
  clip = said.clips[snapshot.clip]
  shown = np.unique(np.linspace(0, len(snapshot.crops) - 1, 4).astype(int))
  faces, maps = [], []
  for place in shown.tolist():
    content = np.frombuffer(snapshot.crops[place], np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_COLOR_RGB)
    assert image is not None  # encoded by us
    small = cv2.resize(image, (160, 160), interpolation=cv2.INTER_AREA)
    faces.append(_picture(answer.jpeg(small), 'face', 160))
    if with_map:
      painted = heat.overlay(small, snapshot.maps[place])
      maps.append(_picture(answer.jpeg(painted), 'vulnerability map', 160))
  who = f'Person {snapshot.track}, ' if len(said.tracks) > 1 else ''
  caption = (
    f'<figcaption>{who}{timeline.clock(clip.times[0]).replace(" ", "&nbsp;")}:'
    f' {clip.score if math.isnan(clip.probability) else clip.probability:.2f}'
    '</figcaption>'
  )
  if len(faces) == 1:
    pictures = f'<div class="frames">{faces[0]}{"".join(maps)}</div>'
    kind = 'one' if maps else 'bare'
    return f'<figure class="clip {kind}">{caption}{pictures}</figure>'
  rows = ''.join(
    f'<div class="frames">{"".join(row)}</div>' for row in (faces, maps) if row
  )
  return f'<figure class="clip">{caption}{rows}</figure>'


def _looked_at(said: answer.Answer) -> str:
  items = []
  if sampling := said.sampling:
    items.append(
      f'{sampling.frames_decoded} of {sampling.frames_in_file} frames, of which'
      f' {sampling.frames_with_face} show a face'
    )
    far = 'in a row' if sampling.frame_rule == 'dense' else 'far apart'
    rule = (
      'single frames'
      if sampling.clip_frames == 1
      else f'clips of {sampling.clip_frames} frames {far}'
    )
    spacing = (
      ''
      if math.isnan(sampling.spacing)
      else f', one every {sampling.spacing:.2g} s'
    )
    cap = ' (the cap)' if sampling.capped else ''
    items.append(f'{rule}{spacing}, at most {sampling.max_frames} frames{cap}')
  if quality := said.quality:
    items += [
      f'picture {quality.width} x {quality.height} px, {quality.fps:.4g} frames'
      f' a second, {timeline.clock(quality.duration)}',
      f'face {quality.face_size:.0f} px (256 px would show all that the'
      f' detector can see); brightness {quality.brightness:.0f} of 255;'
      f' sharpness {quality.sharpness:.0f}',
    ]
  yes = ''.join(f'<li>{html.escape(item)}</li>' for item in items)
  no = ''.join(f'<li>{html.escape(item)}</li>' for item in said.not_looked_at)
  return (
    '<div class="two"><div><h3>Looked at</h3>'
    f'<ul>{yes or "<li>nothing</li>"}</ul></div>'
    f'<div><h3>Not looked at</h3><ul>{no}</ul></div></div>'
  )


def _credentials(said: answer.Answer) -> str:
  found = said.credentials
  if found is None:
    return '<p>The file could not be opened.</p>'
  words = {
    'none': 'The file carries no C2PA manifest (Content Credentials), as most'
    ' files do not.',
    'valid': 'The file carries a C2PA manifest (Content Credentials) whose'
    ' signature fits it. Whether its signer is who they say was not checked.',
    'invalid': 'The file carries a C2PA manifest (Content Credentials) that'
    ' does not fit it or is damaged.',
    'remote': 'The file names a C2PA manifest (Content Credentials) that lies'
    ' elsewhere. It was not fetched: nothing here asks another machine.',
    'not_checked': 'Whether the file carries a C2PA manifest (Content'
    ' Credentials) was not looked up: the package c2pa-python is not'
    ' installed.',
  }[found.state]
  rows = [
    ('written by', found.generator),
    ('signed by', found.signer),
    ('at', found.time),
    ('says it was', ', '.join(found.actions)),
    ('does not fit', ', '.join(found.problems)),
  ]
  body = ''.join(
    f'<tr><th>{name}</th><td>{html.escape(value)}</td></tr>'
    for name, value in rows
    if value
  )
  table = f'<table class="facts">{body}</table>' if body else ''
  return f'<p>{words} This is no proof, either way.</p>{table}'


def _trust(said: answer.Answer, card: str) -> str:
  about = (
    f'<details><summary>How this detector fares, on which fakes</summary>'
    f'<pre>{html.escape(card)}</pre></details>'
    if card
    else '<p>No card comes with this detector: how it fares is not known.</p>'
  )
  interval = (
    'The interval comes from drawing the clips of this video anew: it says how'
    ' much they disagree, not how often the detector errs. '
    if said.interval
    else ''
  )
  return (
    f'<p>{html.escape(_capital(said.calibration))}.</p>'
    f'<p>{interval}One answer is no proof either way. Whether a video is real'
    f' is a matter for people.</p>{about}'
  )


def _capital(text: str) -> str:
  return text[:1].upper() + text[1:]


def _hashes(said: answer.Answer) -> str:
  names = {
    'video': 'SHA-256 of the file',
    'weights': 'weights',
    'config': 'configuration',
  }
  rows = [('file', said.video)]
  rows += [(names.get(k, k), v) for k, v in said.hashes.items()]
  rows.append(('checkpoint', str(said.provenance.get('checkpoint', ''))))
  body = ''.join(
    f'<tr><th>{html.escape(name)}</th><td class="mono">{html.escape(value)}'
    '</td></tr>'
    for name, value in rows
  )
  rest = json.dumps(
    {'provenance': said.to_dict()['provenance']}, indent=1, allow_nan=False
  )
  return (
    f'<table class="facts">{body}</table><details><summary>All settings and'
    f' versions</summary><pre>{html.escape(rest)}</pre></details>'
  )


def _section(title: str, body: str) -> str:
  return f'<section><h2>{html.escape(title)}</h2>{body}</section>'


def _picture(content: bytes, alt: str, side: int) -> str:
  encoded = base64.b64encode(content).decode()
  return (
    f'<img src="data:image/jpeg;base64,{encoded}" alt="{html.escape(alt)}"'
    f' width="{side}" height="{side}">'
  )
