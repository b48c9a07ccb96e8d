package aviary

import (
	"fmt"

	service "aviary/wit/imports/aviary_bot_customer_service"
	"aviary/wit/imports/aviary_bot_http"
	"aviary/wit/imports/aviary_bot_kv"
	api "aviary/wit/imports/aviary_bot_wechat_api"
	wit "aviary/wit/types"
)

// Checked gives a result of the host's functions Go's own form.
func Checked[T, E any](result wit.Result[T, E]) (value T, err error) {
	if result.IsErr() {
		return value, Error[E]{result.Err()}
	}
	return result.Ok(), nil
}

// Error is why the host did not do what it was asked for. The reason is as wit/ has it, for errors.As.
type Error[E any] struct {
	Reason E
}

func (e Error[E]) Error() string {
	switch reason := any(e.Reason).(type) {
	case aviary_bot_kv.Error:
		return "kv: " + kvReason(reason)
	case aviary_bot_http.Error:
		return "http: " + httpReason(reason)
	case service.Error:
		return "customer-service: " + serviceReason(reason)
	case api.Error:
		return "wechat-api: " + apiReason(reason)
	default:
		return fmt.Sprint(reason)
	}
}

func kvReason(reason aviary_bot_kv.Error) string {
	switch reason.Tag() {
	case aviary_bot_kv.Error_Denied:
		return "denied: " + reason.Denied()
	case aviary_bot_kv.Error_Full:
		return "full: " + reason.Full()
	case aviary_bot_kv.Error_Invalid:
		return "invalid: " + reason.Invalid()
	default:
		return "unavailable: " + reason.Unavailable()
	}
}

func httpReason(reason aviary_bot_http.Error) string {
	switch reason.Tag() {
	case aviary_bot_http.Error_Denied:
		return "denied: " + reason.Denied()
	case aviary_bot_http.Error_Invalid:
		return "invalid: " + reason.Invalid()
	case aviary_bot_http.Error_Timeout:
		return "nothing came in time"
	case aviary_bot_http.Error_TooLarge:
		return fmt.Sprintf("the answer was larger than %d bytes", reason.TooLarge())
	default:
		return "unreachable: " + reason.Unreachable()
	}
}

func serviceReason(reason service.Error) string {
	switch reason.Tag() {
	case service.Error_Denied:
		return "denied: " + reason.Denied()
	case service.Error_Invalid:
		return "invalid: " + reason.Invalid()
	case service.Error_Refused:
		return fmt.Sprintf("refused: %d %s", reason.Refused().F0, reason.Refused().F1)
	default:
		return "unreachable: " + reason.Unreachable()
	}
}

func apiReason(reason api.Error) string {
	switch reason.Tag() {
	case api.Error_Denied:
		return "denied: " + reason.Denied()
	case api.Error_Invalid:
		return "invalid: " + reason.Invalid()
	case api.Error_Refused:
		return fmt.Sprintf("refused: %d %s", reason.Refused().F0, reason.Refused().F1)
	default:
		return "unreachable: " + reason.Unreachable()
	}
}
