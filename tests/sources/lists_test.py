"""Lists as spreadsheets and editors write them are read, or named."""

import pytest

from data_pipeline.sources import lists

TEXT = 'path,label,identity\ncafé.mp4,real,Zoë\nb.mp4,fake,"Li, Wei"\n'
ROWS = [
  {'path': 'café.mp4', 'label': 'real', 'identity': 'Zoë'},
  {'path': 'b.mp4', 'label': 'fake', 'identity': 'Li, Wei'},
]


def read(path, raw: bytes):
  path.write_bytes(raw)
  rows = lists.read_rows(path, ('path', 'label'))
  return [dict(row.cells) for row in rows]


@pytest.mark.parametrize(
  'encoding',
  ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be', 'utf-32'],
)
@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('separator', [',', ';', '\t'])
def test_what_can_be_told_apart_is_read(tmp_path, encoding, end, separator):
  text = TEXT.replace('Li, Wei', 'Li@ Wei').replace(',', separator)
  text = text.replace('@', ',').replace('\n', end)
  assert read(tmp_path / 'a.csv', text.encode(encoding)) == ROWS


def test_the_byte_order_of_utf16_may_be_marked_either_way(tmp_path):
  for mark, encoding in (
    (b'\xff\xfe', 'utf-16-le'),
    (b'\xfe\xff', 'utf-16-be'),
  ):
    assert read(tmp_path / 'a.csv', mark + TEXT.encode(encoding)) == ROWS


def test_empty_lines_spaces_and_capitals_do_not_matter(tmp_path):
  text = '\n Path , LABEL\n\n a.mp4 , real \n,\n b.mp4,fake\n\n'
  assert read(tmp_path / 'a.csv', text.encode()) == [
    {'path': 'a.mp4', 'label': 'real'},
    {'path': 'b.mp4', 'label': 'fake'},
  ]


def test_a_short_line_has_empty_cells(tmp_path):
  assert read(tmp_path / 'a.csv', b'path,label,split\na.mp4,real\n') == [
    {'path': 'a.mp4', 'label': 'real', 'split': ''}
  ]


@pytest.mark.parametrize(
  ('raw', 'says'),
  [
    (
      TEXT.encode('cp1252'),
      r'line 2 is not UTF-8 \(byte 0xe9; as cp1252 .*café',
    ),
    (b'path,label\na.mp4,real\xff\n', 'line 2 is not UTF-8'),
    (TEXT.encode('utf-16')[:-1], r'about line \d: not whole UTF-16'),
    (b'path,label\na\0.mp4,real\n', 'line 2 holds a NUL'),
    (b'path,label\na.mp4,real,val\n', 'line 2 has 3 cells, the header names 2'),
    (b'path,label\n\na,b.mp4,real\n', 'line 3 has 3 cells'),
    (b'path,label\na.mp4,real,\n', 'line 2 has 3 cells'),
    (b'path;label\na.mp4;real;x\n', "quote a cell that holds a ';'"),
    (b'path,label\n"a.mp4,real\n', 'line 2: unexpected end'),
    (b'path,label\n"a"b.mp4,real\n', "line 2: ',' expected after"),
    (b'path,label,label\na.mp4,real,fake\n', 'a column twice'),
    (b'file,label\na.mp4,real\n', 'it needs path and label'),
    (b'', 'it needs path and label'),
    (b'PK\x03\x04\x00\x00', 'is not|holds a NUL'),
  ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, raw, says):
  with pytest.raises(ValueError, match=rf'a\.csv.*({says})'):
    read(tmp_path / 'a.csv', raw)


def test_a_list_that_is_not_there_is_an_error(tmp_path):
  with pytest.raises(ValueError, match='no list of videos'):
    lists.read_rows(tmp_path / 'a.csv', ('path',))
