package openapi

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"io"
	"math/bits"
)

// A document with custom resources is the embedded gzip file with DEFLATE
// blocks put between its pieces, and a new trailer (RFC 1952). Pieces are
// compressed independently of each other, so nothing is compressed again but
// what is new; the checksum of the whole is calculated from those of the parts.

// insertion is content to put behind a piece.
type insertion struct {
	piece
	blocks []byte
}

func newInsertion(content []byte) (insertion, error) {
	if len(content) == 0 {
		return insertion{}, nil
	}
	var out bytes.Buffer
	z, err := flate.NewWriter(&out, flate.DefaultCompression)
	if err != nil {
		return insertion{}, err
	}
	if _, err := z.Write(content); err != nil {
		return insertion{}, err
	}
	if err := z.Flush(); err != nil {
		return insertion{}, err
	}
	return insertion{piece{Size: len(content), Packed: out.Len(), CRC: crc32.ChecksumIEEE(content)}, out.Bytes()}, nil
}

// spliced is a form with insertions: the i-th comes behind the i-th piece.
type spliced struct {
	form       *form
	insertions []insertion
}

var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255}

const gzipTail = 2 + 8 // an empty last block, checksum and size

func (s *spliced) packed() body {
	size := int64(len(gzipHeader) + gzipTail)
	for i, p := range s.form.Pieces {
		size += int64(p.Packed)
		if i < len(s.insertions) {
			size += int64(s.insertions[i].Packed)
		}
	}
	return body{size: size, open: func() (io.Reader, error) {
		readers := []io.Reader{bytes.NewReader(gzipHeader)}
		sum, length := uint32(0), 0
		at := int64(len(gzipHeader))
		for i, p := range s.form.Pieces {
			f, _, err := open(s.form.File)
			if err != nil {
				return nil, err
			}
			if _, err := f.Seek(at, io.SeekStart); err != nil {
				return nil, err
			}
			readers = append(readers, io.LimitReader(f, int64(p.Packed)))
			at += int64(p.Packed)
			sum, length = combineCRC(sum, p.CRC, p.Size), length+p.Size
			if i < len(s.insertions) {
				in := s.insertions[i]
				readers = append(readers, bytes.NewReader(in.blocks))
				sum, length = combineCRC(sum, in.CRC, in.Size), length+in.Size
			}
		}
		tail := binary.LittleEndian.AppendUint32([]byte{3, 0}, sum)
		tail = binary.LittleEndian.AppendUint32(tail, uint32(length))
		return io.MultiReader(append(readers, bytes.NewReader(tail))...), nil
	}}
}

func (s *spliced) plain() body {
	size := int64(s.form.Size)
	for _, in := range s.insertions {
		size += int64(in.Size)
	}
	return body{size: size, open: func() (io.Reader, error) {
		content, err := openPlain(s.form.File)
		if err != nil {
			return nil, err
		}
		var readers []io.Reader
		for i, p := range s.form.Pieces {
			readers = append(readers, io.LimitReader(content, int64(p.Size)))
			if i < len(s.insertions) && s.insertions[i].Size > 0 {
				in := s.insertions[i]
				readers = append(readers, io.LimitReader(flate.NewReader(bytes.NewReader(in.blocks)), int64(in.Size)))
			}
		}
		return io.MultiReader(readers...), nil
	}}
}

// combineCRC is the IEEE CRC-32 of two contents one behind the other, from that
// of each and the second's size in bytes: a CRC is linear, and size zero bytes
// behind the first multiply it by x^(8·size) modulo the polynomial.
func combineCRC(first, second uint32, size int) uint32 {
	power, square := uint32(1)<<31, bits.Reverse32(1<<8) // x^0, x^8; the highest bit is x^0
	for n := size; n > 0; n >>= 1 {
		if n&1 == 1 {
			power = multiplyCRC(power, square)
		}
		square = multiplyCRC(square, square)
	}
	return multiplyCRC(first, power) ^ second
}

// multiplyCRC multiplies two polynomials modulo the IEEE polynomial, bits reversed.
func multiplyCRC(a, b uint32) uint32 {
	var product uint32
	for bit := uint32(1) << 31; bit != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
		}
		if b&1 == 1 {
			b = b>>1 ^ crc32.IEEE
		} else {
			b >>= 1
		}
	}
	return product
}
