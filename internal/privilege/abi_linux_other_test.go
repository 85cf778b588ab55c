//go:build !amd64

package privilege_test

import "errors"

func mountOf32() (int64, error) { return 0, errors.New("other processors are not asked") }
