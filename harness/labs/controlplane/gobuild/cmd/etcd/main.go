// etcd as its release has it: the program is wholly go.etcd.io/etcd/server's own.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
