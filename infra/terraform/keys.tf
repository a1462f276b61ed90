# The workspace has a key of its own: who may not use it reads nothing there, and once it is deleted nobody ever does.
data "aws_iam_policy_document" "key" {
  #checkov:skip=CKV_AWS_109:A key policy's resource is the key itself, and its account must be able to manage it
  #checkov:skip=CKV_AWS_111:As above
  #checkov:skip=CKV_AWS_356:As above
  statement {
    sid       = "AccountManages"
    actions   = ["kms:*"]
    resources = ["*"]
    principals {
      type        = "AWS"
      identifiers = ["arn:aws:iam::${data.aws_caller_identity.here.account_id}:root"]
    }
  }
}

resource "aws_kms_key" "workspace" {
  description             = "anonlib workspace: personal data"
  enable_key_rotation     = true
  deletion_window_in_days = 7
  policy                  = data.aws_iam_policy_document.key.json
}

resource "aws_kms_alias" "workspace" {
  name          = "alias/${var.name}-workspace"
  target_key_id = aws_kms_key.workspace.key_id
}

# Trail, log and alarms may be read by whoever watches over the job, and hold no photograph.
data "aws_iam_policy_document" "records_key" {
  #checkov:skip=CKV_AWS_109:A key policy's resource is the key itself, and its account must be able to manage it
  #checkov:skip=CKV_AWS_111:As above
  #checkov:skip=CKV_AWS_356:As above
  source_policy_documents = [data.aws_iam_policy_document.key.json]
  statement {
    sid       = "LogsAreSealed"
    actions   = ["kms:GenerateDataKey*", "kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:ReEncrypt*"]
    resources = ["*"]
    principals {
      type        = "Service"
      identifiers = ["logs.${var.region}.amazonaws.com"]
    }
    condition {
      test     = "ArnLike"
      variable = "kms:EncryptionContext:aws:logs:arn"
      values   = ["arn:aws:logs:${var.region}:${data.aws_caller_identity.here.account_id}:log-group:/anonlib/*"]
    }
  }
  statement {
    sid       = "TrailIsSealed"
    actions   = ["kms:GenerateDataKey*", "kms:DescribeKey"]
    resources = ["*"]
    principals {
      type        = "Service"
      identifiers = ["cloudtrail.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceArn"
      values   = [local.trail_arn]
    }
  }
  statement {
    sid       = "AlarmsAreSealed"
    actions   = ["kms:GenerateDataKey*", "kms:Decrypt"]
    resources = ["*"]
    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }
  }
}

resource "aws_kms_key" "records" {
  description         = "anonlib records: trail, log, alarms"
  enable_key_rotation = true
  policy              = data.aws_iam_policy_document.records_key.json
}
