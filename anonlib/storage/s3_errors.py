"""What boto3 raises -> one sentence that says what to do, without anything the server said.

Servers answer a wrong secret with the string they signed and the key id, so only the error's code is read,
never its message.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from botocore import exceptions as boto
from urllib3.exceptions import HTTPError

from anonlib.errors import AccessDenied, Changed, NotFound, StorageError, Unavailable

_FULL = {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "507"}
_BUSY = {
    *("500", "502", "503", "504", "429", "InternalError", "ServiceUnavailable", "RequestTimeout"),
    *("SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling", "ThrottlingException", "TooManyRequests"),
    *("DependencyTimeoutException", "InternalServiceError", "KMSInternalException", "KeyUnavailableException"),
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_DENIED = {"AccessDenied", "AccessDeniedException", "403", "AllAccessDisabled"}
_WRONG_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "301", "IllegalLocationConstraintException"}
_NO_CHECKSUMS = {
    *("NotImplemented", "501", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "MissingContentLength"),
    *("InvalidDigest", "BadDigest", "MissingContentMD5", "InvalidArgument", "InvalidRequest"),
}
"""What servers say that refuse the checksums or the trailers of a request; some say it of other things, too."""
_ARCHIVED = {"InvalidObjectState", "ObjectNotInActiveTierError"}


def code_of(error: boto.ClientError) -> str:
    """The short code of a server's answer, such as NoSuchKey or 403."""
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def is_busy(error: boto.ClientError) -> bool:
    """Whether the server may answer the same request in a moment."""
    return code_of(error) in _BUSY


def is_aws(endpoint: str) -> bool:
    """Whether an endpoint's URL is one of AWS itself."""
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))


@contextmanager
def as_sentence(
    action: str, bucket: str, endpoint: str, where: str | None = None, path: str | None = None, *, pays: bool = False
) -> Iterator[None]:
    """Turn what boto3 raises in the block into a StorageError; `action` is the IAM name (s3:PutObject).

    `where` is what the sentence says of the file at `path`, the bucket if it is None. `pays`: the request said that its
    sender pays for it.
    """
    try:
        yield
    except boto.ClientError as error:
        refused = _refused(code_of(error), action, bucket, endpoint, where or f"s3://{bucket}", pays)
        refused.path = path
        raise refused from error
    except boto.BotoCoreError as error:
        raise not_sent(error, action, f"s3://{bucket}", endpoint) from error
    except HTTPError as error:
        # botocore reads the body of a refusal outside its own handler, so one that is cut comes raw from urllib3.
        raise Unavailable(f"The answer of {endpoint} to {action} was cut off; try again.") from error


def _refused(code: str, action: str, bucket: str, endpoint: str, place: str, pays: bool) -> StorageError:
    if code in ("NoSuchKey", "404"):
        return NotFound(f"There is no such file: {place}.")
    if code == "NoSuchUpload":
        # So says a server, too, that did complete an upload whose answer was lost.
        return Unavailable(f"The upload of {place} was ended at the server; run again.")
    if code in ("NoSuchBucket", "InvalidBucketName"):
        return StorageError(f"There is no bucket '{bucket}' at {endpoint}; check its name, or create it.")
    if code == "SignatureDoesNotMatch":
        return StorageError(
            f"The secret key does not belong to the access key id that was sent to {endpoint}; "
            "check AWS_SECRET_ACCESS_KEY or the profile."
        )
    if code in ("InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken"):
        return StorageError(f"{endpoint} does not know this access key id; check AWS_ACCESS_KEY_ID or the profile.")
    if code == "RequestTimeTooSkewed":
        return StorageError(f"This machine's clock differs too much from the one at {endpoint}; set it.")
    if code in ("PreconditionFailed", "412"):
        return Changed(f"{place} has changed since it was listed; start a new run for the new data.")
    if code in _ARCHIVED:
        return AccessDenied(f"{place} is archived (Glacier); restore it, and run again.")
    if code.startswith("KMS."):
        return AccessDenied(
            f"{endpoint} cannot use the KMS key of {place} ({code}); check storage.kms_key, or the key that the object "
            "was encrypted with, and whether these credentials may use it."
        )
    if code in _WRONG_REGION and not is_aws(endpoint):
        return StorageError(
            f"{endpoint} expects another region than the one that {action} was signed for ({code}); set "
            "storage.region (--region) to the name that this server has for its own, such as us-east-1, auto or garage."
        )
    if code in _WRONG_REGION:
        return StorageError(f"The bucket '{bucket}' is in another region; set the region, or AWS_REGION.")
    if code in _FULL:
        return StorageError(f"The storage behind {endpoint} is full; {place} was not written.")
    if code in _NO_CHECKSUMS:
        return StorageError(
            f"{endpoint} refused {action} on {place} ({code}); if it is a server that does not know the checksums of "
            "boto3, set AWS_REQUEST_CHECKSUM_CALCULATION=when_required."
        )
    hint = ""
    if action == "s3:GetObject":
        hint = " (S3 says the same of a missing file where s3:ListBucket is denied)"
    if action in ("s3:GetObject", "s3:ListBucket") and is_aws(endpoint) and not pays:
        hint += "; if its requesters pay for it, set storage.requester_pays (--requester-pays)"
    return refused_by_any(code, action, place, endpoint, hint) or StorageError(
        f"{endpoint} refused {action} on {place} ({code})."
    )


def refused_by_any(code: str, action: str, what: str, endpoint: str, hint: str = "") -> StorageError | None:
    """What these codes mean at any service of AWS, None for other codes; `hint` follows who may not."""
    if code in _EXPIRED:
        return StorageError("The temporary AWS credentials have expired; get new ones and run again.")
    if code in _DENIED:
        return AccessDenied(f"Access denied: these credentials may not do {action} on {what}{hint}.")
    if code in _BUSY:
        return Unavailable(f"{endpoint} is overloaded or failing ({code}) and did not do {action}; try again later.")
    return None


def not_sent(error: boto.BotoCoreError, action: str, what: str, endpoint: str) -> StorageError:
    """Why no service of AWS was asked for the IAM `action` on `what` at all."""
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.CredentialRetrievalError):
        return StorageError(
            f"No usable AWS credentials for {what}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "a profile, or the role of this machine; a public input needs none with storage.anonymous."
        )
    if isinstance(error, boto.ProfileNotFound):
        return StorageError("The profile that AWS_PROFILE or the job names is not in the AWS configuration files.")
    if isinstance(error, boto.FlexibleChecksumError | boto.IncompleteReadError):
        return Unavailable(f"What {endpoint} sent was cut off, or does not match its checksum; try again.")
    if isinstance(error, boto.SSLError):
        return StorageError(f"The TLS certificate of {endpoint} is not trusted here; set AWS_CA_BUNDLE.")
    if isinstance(error, boto.ConnectionError | boto.HTTPClientError):
        return Unavailable(f"{endpoint} cannot be reached; check the address, the network and any proxy.")
    if isinstance(error, boto.ParamValidationError):
        return StorageError(f"'{what}' has no possible bucket name, or the path below it is not valid.")
    return StorageError(f"{action} on {what} could not be sent ({type(error).__name__}).")
