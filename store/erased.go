package store

import (
	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
)

// selectErased asks who was erased, unless that is known of this catalogue: an
// erasure makes it another one.
const selectErased = `
SELECT k.secret, e.hash FROM learnsink.erased e CROSS JOIN learnsink.erased_key k
WHERE (SELECT ` + catalogueIdentity + ` FROM learnsink.catalogue_version) <> $1`

func collectErased(rows pgx.Rows, secret *[]byte, hashes *[]handlers.IdentityHash) error {
	var hash []byte
	_, err := pgx.ForEachRow(rows, []any{secret, &hash}, func() error {
		*hashes = append(*hashes, handlers.IdentityHash(hash))
		return nil
	})
	return err
}
