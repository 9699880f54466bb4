// Fetches a URL with Go's own HTTP client and prints {"status", "body", "error"}.
package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
)

func main() {
	told := map[string]any{"status": 0, "body": "", "error": ""}
	response, err := http.Get(os.Args[1])
	if err == nil {
		defer response.Body.Close()
		var body []byte
		body, err = io.ReadAll(response.Body)
		told["status"], told["body"] = response.StatusCode, string(body)
	}
	if err != nil {
		told["error"] = err.Error()
	}
	json.NewEncoder(os.Stdout).Encode(told)
}
