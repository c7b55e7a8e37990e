package http2

import (
	"encoding/binary"
	"fmt"
)

// The frames of RFC 9113, section 6.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	framePriority     = 0x2
	frameReset        = 0x3
	frameSettings     = 0x4
	framePush         = 0x5
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindow       = 0x8
	frameContinuation = 0x9
)

const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// The settings of RFC 9113, section 6.5.2.
const (
	settingTableSize  = 0x1
	settingPush       = 0x2
	settingMaxStreams = 0x3
	settingWindow     = 0x4
	settingMaxFrame   = 0x5
	settingHeaderList = 0x6
)

const (
	preface     = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	headBytes   = 9
	leastFrame  = 16 << 10 // every peer takes frames of this size
	mostFrame   = 1<<24 - 1
	firstWindow = 1<<16 - 1 // of a connection and a stream, until told otherwise
	mostWindow  = 1<<31 - 1
	mostStream  = 1<<31 - 1
)

// code is why a stream or a connection ends (RFC 9113, section 7).
type code uint32

const (
	noError          code = 0x0
	protocolError    code = 0x1
	internalError    code = 0x2
	flowControlError code = 0x3
	streamClosed     code = 0x5
	frameSizeError   code = 0x6
	refusedStream    code = 0x7
	compressionError code = 0x9
	enhanceYourCalm  code = 0xb
)

// connError ends the connection.
type connError struct {
	code code
	why  string
}

func (e connError) Error() string {
	return fmt.Sprintf("HTTP/2 connection error %#x: %s", uint32(e.code), e.why)
}

// streamError ends a stream.
type streamError struct {
	stream uint32
	code   code
	why    string
}

func (e streamError) Error() string {
	return fmt.Sprintf("HTTP/2 stream %d: error %#x: %s", e.stream, uint32(e.code), e.why)
}

// head is the head of a frame.
type head struct {
	length int
	kind   uint8
	flags  uint8
	stream uint32
}

func (h head) has(flag uint8) bool { return h.flags&flag != 0 }

func parseHead(b []byte) head {
	return head{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		kind:   b[3], flags: b[4],
		stream: binary.BigEndian.Uint32(b[5:]) & mostStream,
	}
}

func appendHead(b []byte, length int, kind, flags uint8, stream uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), kind, flags)
	return binary.BigEndian.AppendUint32(b, stream)
}

// putLength and the flags of a frame that lies at b can still change while it was not sent.
func putLength(b []byte, length int) {
	b[0], b[1], b[2] = byte(length>>16), byte(length>>8), byte(length)
}

func appendReset(b []byte, stream uint32, why code) []byte {
	return binary.BigEndian.AppendUint32(appendHead(b, 4, frameReset, 0, stream), uint32(why))
}

func appendWindow(b []byte, stream uint32, n int) []byte {
	return binary.BigEndian.AppendUint32(appendHead(b, 4, frameWindow, 0, stream), uint32(n))
}

func appendGoAway(b []byte, last uint32, why code) []byte {
	b = binary.BigEndian.AppendUint32(appendHead(b, 8, frameGoAway, 0, 0), last)
	return binary.BigEndian.AppendUint32(b, uint32(why))
}

func appendSetting(b []byte, id uint16, value uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id), value)
}

// unpad takes the padding off the payload of DATA and HEADERS, and what a HEADERS frame says of priorities. With a streamError it returns
// the rest all the same.
func unpad(h head, b []byte) (rest []byte, err error) {
	pad := 0
	if h.has(flagPadded) {
		if len(b) < 1 {
			return nil, connError{frameSizeError, "a padded frame without padding"}
		}
		pad, b = int(b[0]), b[1:]
	}
	if h.kind == frameHeaders && h.has(flagPriority) {
		if len(b) < 5 {
			return nil, connError{frameSizeError, "HEADERS too short for its priority"}
		}
		if binary.BigEndian.Uint32(b)&mostStream == h.stream {
			err = streamError{h.stream, protocolError, "a stream that depends on itself"}
		}
		b = b[5:]
	}
	if pad > len(b) {
		return nil, connError{protocolError, "more padding than payload"}
	}
	return b[:len(b)-pad], err
}
