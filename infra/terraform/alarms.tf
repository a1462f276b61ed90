# Two things that somebody must hear of: a job that stopped, and anybody in the workspace who has no business there.
resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = aws_kms_key.records.id
}

resource "aws_sns_topic_subscription" "email" {
  count     = var.alarm_email == null ? 0 : 1
  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = var.alarm_email
}

# Where the containers' logs go (Fluent Bit on EKS, the CloudWatch agent on machines).
resource "aws_cloudwatch_log_group" "jobs" {
  name              = "/anonlib/${var.name}/jobs"
  retention_in_days = 365
  kms_key_id        = aws_kms_key.records.arn
}

locals {
  issuer = "$.userIdentity.sessionContext.sessionIssuer.arn"
  alarms = {
    # A job that cannot go on says so in one line that begins with its name.
    failed-job = {
      group       = aws_cloudwatch_log_group.jobs.name
      pattern     = "\"anonlib: \""
      description = "An anonlib job stopped; the log's line that begins with 'anonlib: ' says why."
    }
    unexpected-access = {
      group = aws_cloudwatch_log_group.trail.name
      pattern = join(" ", [
        "{ ($.requestParameters.bucketName = \"${aws_s3_bucket.place["workspace"].id}\")",
        "&& ($.userIdentity.invokedBy NOT EXISTS) && ((${local.issuer} NOT EXISTS) ||",
        "(${join(" && ", [for arn in local.workspace_principals : "(${local.issuer} != \"${arn}\")"])})) }",
      ])
      description = "Somebody who is none of the job's roles asked for an object of the workspace."
    }
    refused-access = {
      group       = aws_cloudwatch_log_group.trail.name
      pattern     = "{ $.errorCode = \"AccessDenied\" }"
      description = "Somebody was refused an object of the workspace or the release."
    }
  }
}

resource "aws_cloudwatch_log_metric_filter" "alarm" {
  for_each       = local.alarms
  name           = "${var.name}-${each.key}"
  log_group_name = each.value.group
  pattern        = each.value.pattern
  metric_transformation {
    namespace     = "anonlib"
    name          = "${var.name}-${each.key}"
    value         = "1"
    default_value = "0"
  }
}

resource "aws_cloudwatch_metric_alarm" "alarm" {
  for_each            = local.alarms
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = "anonlib"
  metric_name         = aws_cloudwatch_log_metric_filter.alarm[each.key].metric_transformation[0].name
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
}
