package wire

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Limits of lists. What is longer is cut when it is encoded and refused when
// it is decoded.
const (
	MaxRecords    = 4096 // in a batch
	maxArgs       = 4096
	maxCapability = 64
	maxAddresses  = 256
	maxFields     = 256
	maxAnswers    = 256
	maxGroups     = 1024
	maxTechniques = 64
	maxEvidence   = 256
	maxTree       = 256
	maxEvents     = 256
	maxStages     = 16
)

// fieldsCut is set in the fields of an event that had more than the limit.
const fieldsCut = "fields_truncated"

// shape says how often a field of a message may come, and the shapes of the
// messages within it. It is checked before a message is decoded: an empty
// element of a list takes two bytes of a frame and hundreds of memory.
type shape map[protowire.Number]part

type part struct {
	most   int
	inside shape
}

// The numbers are those of wire.proto.
var (
	processShape  = shape{5: {maxArgs, nil}}
	evidenceShape = shape{4: {1, nil}, 5: {1, processShape}, 6: {1, nil}, 7: {1, nil}}
	eventShape    = shape{
		6: {1, processShape}, 7: {1, processShape}, 10: {1, shape{3: {maxAnswers, nil}}}, 12: {1, shape{5: {maxGroups, nil}}}, 21: {maxFields, nil},
	}
	findingShape = shape{
		6: {maxTechniques, nil}, 12: {maxEvidence, evidenceShape}, 13: {maxTree, processShape}, 14: {maxEvents, eventShape},
	}
	recordShape = shape{1: {1, eventShape}, 2: {1, findingShape}}
	frameShape  = shape{
		1:  {1, shape{3: {1, shape{10: {maxAddresses, nil}, 11: {maxAddresses, nil}}}, 7: {maxCapability, nil}}},
		3:  {1, shape{3: {MaxRecords, nil}}},
		8:  {1, shape{3: {1, nil}, 4: {1, nil}}},
		11: {1, shape{7: {maxStages, nil}, 8: {1, nil}, 9: {maxStages, nil}}},
		12: {1, shape{2: {maxStages, nil}}},
		13: {1, shape{5: {1, nil}}},
	}
)

// check refuses what is not of the shape.
func (s shape) check(b []byte) error {
	var seen map[protowire.Number]int
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", ErrFrame, protowire.ParseError(n))
		}
		b = b[n:]
		n = protowire.ConsumeFieldValue(number, kind, b)
		if n < 0 {
			return fmt.Errorf("%w: %w", ErrFrame, protowire.ParseError(n))
		}
		if p, known := s[number]; known {
			if seen == nil {
				seen = map[protowire.Number]int{}
			}
			if seen[number]++; seen[number] > p.most {
				return fmt.Errorf("%w: more than %d of field %d", ErrFrame, p.most, number)
			}
			if p.inside != nil && kind == protowire.BytesType {
				inner, _ := protowire.ConsumeBytes(b)
				if err := p.inside.check(inner); err != nil {
					return err
				}
			}
		}
		b = b[n:]
	}
	return nil
}

// clip cuts a list at a limit.
func clip[T any](list []T, most int) []T { return list[:min(len(list), most)] }

// fieldsTo keeps the first fields by name, and says so, when there are too
// many.
func fieldsTo(m map[string]string) map[string]string {
	if m == nil {
		return nil
	}
	names := slices.Sorted(maps.Keys(m))
	out := make(map[string]string, min(len(m), maxFields))
	if len(names) > maxFields {
		names = names[:maxFields-1]
		out[fieldsCut] = "true"
	}
	for _, name := range names {
		out[text(name)] = text(m[name])
	}
	return out
}
