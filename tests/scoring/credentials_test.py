"""What a file's C2PA manifest says, and that nobody is asked for one."""

import datetime
import json
import socket

import bright_faces
import pytest

from stormer_jax.scoring import answer, credentials


@pytest.fixture(scope='module')
def film(tmp_path_factory):
  path = tmp_path_factory.mktemp('film') / 'film.mp4'
  return bright_faces.write_squares(path, 12, lambda t: [(100, 100, True)])


@pytest.mark.extra
def test_a_file_without_a_manifest_carries_none(film, monkeypatch):
  pytest.importorskip('c2pa')
  assert credentials.read(film) == answer.Credentials('none')


def test_without_the_package_it_says_that_nothing_was_looked_up(
  film, monkeypatch
):
  monkeypatch.setattr(credentials, '_library', lambda: None)
  assert credentials.read(film) == answer.Credentials('not_checked')


def test_what_can_carry_no_manifest_is_not_opened_as_if_it_could(tmp_path):
  (tmp_path / 'letter.mp4').write_text('no film')
  for path in (tmp_path, tmp_path / 'letter.mp4'):
    assert credentials.read(path) == answer.Credentials('none')


def certify(folder):
  """A certificate of a signer whom nobody knows, and its key."""
  from cryptography import x509
  from cryptography.hazmat.primitives import hashes, serialization
  from cryptography.hazmat.primitives.asymmetric import ec
  from cryptography.x509 import oid

  def name(text):
    return x509.Name(
      [
        x509.NameAttribute(oid.NameOID.ORGANIZATION_NAME, text),
        x509.NameAttribute(oid.NameOID.COMMON_NAME, text),
      ]
    )

  now = datetime.datetime.now(datetime.UTC)
  root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

  def sign(subject, public_key, is_root):
    usage = dict.fromkeys(
      (
        *('digital_signature', 'content_commitment', 'key_encipherment'),
        *('data_encipherment', 'key_agreement', 'key_cert_sign'),
        *('crl_sign', 'encipher_only', 'decipher_only'),
      ),
      False,
    )
    usage['key_cert_sign' if is_root else 'digital_signature'] = True
    made = (
      x509.CertificateBuilder()
      .subject_name(name(subject))
      .issuer_name(name('Root of a test'))
      .public_key(public_key)
      .serial_number(x509.random_serial_number())
      .not_valid_before(now - datetime.timedelta(days=1))
      .not_valid_after(now + datetime.timedelta(days=30))
      .add_extension(x509.BasicConstraints(is_root, None), critical=True)
      .add_extension(x509.KeyUsage(**usage), critical=True)
      .add_extension(
        x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False
      )
      .add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(
          root_key.public_key()
        ),
        critical=False,
      )
    )
    if not is_root:
      made = made.add_extension(
        x509.ExtendedKeyUsage([oid.ExtendedKeyUsageOID.EMAIL_PROTECTION]),
        critical=False,
      )
    return made.sign(root_key, hashes.SHA256())

  chain = [
    sign('Somebody', key.public_key(), False),
    sign('Root of a test', root_key.public_key(), True),
  ]
  pem = serialization.Encoding.PEM
  return b''.join(one.public_bytes(pem) for one in chain), key.private_bytes(
    pem,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
  )


def sign(film, out, remote=''):
  """Signs a copy of a film; with `remote` its manifest lies there alone."""
  c2pa = pytest.importorskip('c2pa')
  certificates, key = certify(out.parent)
  signer = c2pa.Signer.from_info(
    c2pa.C2paSignerInfo(b'es256', certificates, key, None)
  )
  builder = c2pa.Builder(
    json.dumps(
      {
        'claim_generator_info': [{'name': 'Test <camera>', 'version': '1'}],
        'assertions': [
          {
            'label': 'c2pa.actions',
            'data': {
              'actions': [
                {
                  'action': 'c2pa.created',
                  'digitalSourceType': 'http://cv.iptc.org/newscodes/'
                  'digitalsourcetype/digitalCapture',
                }
              ]
            },
          }
        ],
      }
    )
  )
  if remote:
    builder.set_no_embed()
    builder.set_remote_url(remote)
  with film.open('rb') as source, out.open('w+b') as destination:
    builder.sign(signer, 'video/mp4', source, destination)
  return out


@pytest.mark.extra
def test_a_manifest_says_who_made_the_file_and_with_what(film, tmp_path):
  said = credentials.read(sign(film, tmp_path / 'signed.mp4'))
  assert said.state == 'valid', said
  assert said.generator.startswith('Test <camera>')
  assert said.signer in ('Somebody', 'Root of a test')
  assert said.actions == ('c2pa.created',) and not said.problems


@pytest.mark.extra
def test_a_file_that_was_changed_after_it_was_signed_is_found_out(
  film, tmp_path
):
  signed = sign(film, tmp_path / 'signed.mp4')
  content = bytearray(signed.read_bytes())
  at = content.index(b'mdat') + 200
  content[at] ^= 0xFF
  signed.write_bytes(content)
  said = credentials.read(signed)
  assert said.state == 'invalid' and 'assertion.bmffHash.mismatch' in (
    said.problems
  )


@pytest.mark.extra
def test_a_manifest_elsewhere_is_not_fetched(film, tmp_path):
  with socket.create_server(('127.0.0.1', 0)) as server:
    port = server.getsockname()[1]
    remote = f'http://127.0.0.1:{port}/manifest.c2pa'
    said = credentials.read(sign(film, tmp_path / 'signed.mp4', remote))
    assert said.state == 'remote', said
    server.settimeout(0.2)
    with pytest.raises(TimeoutError):
      server.accept()


@pytest.mark.extra
def test_a_damaged_manifest_is_an_answer_and_not_a_crash(film, tmp_path):
  signed = sign(film, tmp_path / 'signed.mp4')
  content = bytearray(signed.read_bytes())
  at = content.index(b'c2pa.claim')
  content[at : at + 400] = bytes(400)
  signed.write_bytes(content)
  assert credentials.read(signed).state in ('invalid', 'none')
