package logs

import (
	"bytes"
	"io"
	"os"
)

// tailBlock is how much of a file is read at a time from its end.
const tailBlock = 32 << 10

// tailStart returns where the last lines of a log begin. A line of the container
// may be several records: it begins after the record that ended the line
// before. Records of both streams count alike.
func tailStart(f *os.File, lines int64) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	if lines <= 0 {
		return size, nil
	}
	// Walk back over the ends of records. Each record that is known to end a line
	// is one line less to find; where the next one would be, the tail begins.
	block := make([]byte, tailBlock)
	end := size      // everything from here on was looked at
	var after []byte // the beginning of the line that reaches into the block looked at before
	recordEnd := size
	for end > 0 {
		start := max(0, end-tailBlock)
		part := block[:end-start]
		if _, err := f.ReadAt(part, start); err != nil && err != io.EOF {
			return 0, err
		}
		for at := len(part); at > 0; {
			newline := bytes.LastIndexByte(part[:at], '\n')
			if newline < 0 {
				break
			}
			// The record after this newline begins at start+newline+1.
			begin := start + int64(newline) + 1
			if begin < recordEnd {
				head := part[newline+1 : at]
				if len(after) > 0 && len(head) < headSize {
					head = append(bytes.Clone(head), after...)
				}
				if endsLine(head) {
					if lines == 0 {
						return recordEnd, nil
					}
					lines--
				} else if recordEnd == size && lines > 0 {
					lines-- // the last line is not complete yet
				}
			}
			recordEnd, after = begin, nil
			at = newline
		}
		if newline := bytes.IndexByte(part, '\n'); newline >= 0 {
			after = bytes.Clone(part[:newline])
		} else {
			after = append(bytes.Clone(part), after...)
		}
		if len(after) > headSize {
			after = after[:headSize] // enough to tell whether the record ends a line
		}
		end = start
	}
	// The first record of the file is left.
	if lines == 0 && recordEnd > 0 && endsLine(after) {
		return recordEnd, nil
	}
	return 0, nil
}

// headSize is enough for time, stream and tags of a record.
const headSize = 256

func endsLine(record []byte) bool {
	if len(record) > headSize {
		record = record[:headSize]
	}
	head, _, ok := parse(record)
	return !ok || !head.partial
}
