# The secrets of a job: Terraform makes the places and never sees the values. Put them there once, from standard input:
#   openssl rand -hex 32 | aws secretsmanager put-secret-value --secret-id NAME-job --secret-string file:///dev/stdin
# Two, because the review page draws its sample by the first, and nobody who reviews may sign a certificate.
locals {
  secrets = {
    job     = "Keys every draw and pseudonym of anonlib jobs."
    signing = "Signs the certificates and audits of anonlib jobs."
  }
}

resource "aws_secretsmanager_secret" "job" {
  #checkov:skip=CKV2_AWS_57:Who changes the secret changes every pseudonym; releases of one secret belong together
  for_each    = local.secrets
  name        = "${var.name}-${each.key}"
  description = each.value
  kms_key_id  = aws_kms_key.secret.arn
}

# A key apart from the workspace's, which may be deleted with the workspace while the secrets are still used.
resource "aws_kms_key" "secret" {
  description         = "anonlib secrets"
  enable_key_rotation = true
  policy              = data.aws_iam_policy_document.key.json
}
